"""What is delivered, and what is acknowledged when."""

from __future__ import annotations

from typing import Any

import pytest
from play import UNKNOWN, Play, event, numbers

from service.cometd import (
    Delivery,
    Lost,
    PossibleGap,
    Purpose,
    State,
    split,
)
from service.cometd.actions import Listen


@pytest.mark.parametrize("place", ["before", "after"])
def test_events_are_delivered_wherever_they_stand(place: str) -> None:
    play = Play()
    play.steady()
    play.next()
    around: Any = {place: (event(1), event(2))}
    (delivery,) = play.reply({"successful": True, "ext": {"ack": 2}}, **around)
    assert numbers(delivery) == [1, 2]
    assert isinstance(delivery, Delivery)
    assert (delivery.batch, delivery.attempt, delivery.at) == (2, 1, play.wall)
    assert delivery.request_id == play.sent[0]["id"]


def test_the_next_connect_acknowledges_what_was_confirmed() -> None:
    play = Play()
    play.steady()
    play.confirm(*play.poll(1))
    play.next()
    assert play.sent[0]["ext"] == {"ack": play.batch}


def test_an_empty_answer_moves_the_acknowledgement_too() -> None:
    play = Play()
    play.steady()
    play.poll()
    play.next()
    assert play.sent[0]["ext"] == {"ack": play.batch}


def test_what_is_not_confirmed_is_not_acknowledged_and_comes_again_paced() -> None:
    play = Play()
    play.steady()
    (delivery,) = play.poll(1)
    for attempt in (1, 2, 3):
        assert isinstance(delivery, Delivery)
        assert delivery.attempt == attempt
        play.session.withheld(delivery, play.now)
        play.next()
        assert 0.5 <= play.paused <= 1.0
        assert play.sent[0]["ext"] == {"ack": 1}
        play.batch += 1
        (delivery,) = play.reply({"successful": True, "ext": {"ack": play.batch}}, before=(event(1),))
    play.confirm(delivery)
    (delivery,) = play.poll(2)
    assert isinstance(delivery, Delivery)
    assert delivery.attempt == 1
    assert play.sent[0]["ext"] == {"ack": play.batch - 1}


def test_a_copy_that_the_server_does_not_send_again_is_ours_to_keep() -> None:
    play = Play()
    play.steady()
    (delivery,) = play.poll(1)
    assert isinstance(delivery, Delivery)
    play.session.withheld(delivery, play.now)
    (again,) = play.poll()
    assert numbers(again) == [1]
    assert isinstance(again, Delivery)
    play.session.withheld(again, play.now)
    play.next()
    play.now += 5
    last, lost = play.reply({**UNKNOWN})
    assert numbers(last) == [1]
    assert isinstance(last, Delivery)
    assert (last.batch, last.attempt) == (None, 3)
    assert last.at == again.at, "nothing is certain since"
    assert isinstance(lost, Lost)


def test_the_acknowledgement_is_repeated_after_a_failure() -> None:
    play = Play()
    play.steady()
    play.next()
    assert play.fail() == []
    assert play.session.state is State.RETRYING
    play.next()
    assert play.sent[0]["ext"] == {"ack": 1}
    assert play.sent[0]["advice"] == {"timeout": 0}


@pytest.mark.parametrize("ack", [True, False])
def test_an_answer_without_the_reply_is_a_failure(*, ack: bool) -> None:
    play = Play(ack=ack)
    play.steady()
    play.next()
    items = play.raw(
        [event(1), {"id": "other", "channel": "/meta/connect", "successful": True, "ext": {"ack": 9}}]
    )
    if ack:  # they come again
        assert items == []
        assert play.session.acked == 1
    else:  # nobody else has them
        delivery, gap = items
        assert numbers(delivery) == [1]
        assert isinstance(gap, PossibleGap)
    assert play.session.state is State.RETRYING


def test_events_without_a_batch_in_an_acknowledged_session_are_still_delivered() -> None:
    play = Play()
    play.steady()
    play.next()
    (delivery,) = play.reply({"successful": True}, before=(event(1),))
    assert isinstance(delivery, Delivery)
    assert delivery.batch is None
    play.confirm(delivery)
    assert play.session.acked == 1


def test_unreadable_elements_are_events() -> None:
    play = Play()
    play.steady()
    play.next()
    body = (
        f'[NaN,{{"id":"{play.sent[0]["id"]}","channel":"/meta/connect","successful":true,"ext":{{"ack":2}}}}]'
    )
    (delivery,) = play.session.answered(split(body.encode()), play.now, play.wall)
    assert isinstance(delivery, Delivery)
    assert delivery.messages[0].raw == b"NaN"


def streaming(*, ack: bool) -> Play:
    play = Play(ack=ack, connection_type="websocket", streaming=True)
    play.steady()
    assert play.next() is Purpose.CONNECT
    return play


def test_events_that_come_unasked_are_delivered_while_the_connect_is_out() -> None:
    play = streaming(ack=False)
    (delivery,) = play.raw([event(1)])
    play.confirm(delivery)
    play.now += 5
    action = play.session.next(play.now)
    assert action == Listen(25.0)
    assert play.reply({"successful": True}) == []
    assert play.next() is Purpose.CONNECT


def test_a_late_reply_to_a_connect_given_up_brings_no_events() -> None:
    play = streaming(ack=True)
    late = {"id": "0", "channel": "/meta/connect", "successful": True, "ext": {"ack": 9}}
    assert play.raw([event(1), late]) == []
    assert isinstance(play.session.next(play.now), Listen)
    (delivery,) = play.reply({"successful": True, "ext": {"ack": 10}}, before=(event(1),))
    assert numbers(delivery) == [1]
