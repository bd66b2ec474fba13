"""The end in good order, and what a successor goes on with."""

from __future__ import annotations

import json

import pytest
from play import CALLS, UNKNOWN, Play, event, numbers, resume_state

from service.cometd import (
    Delivery,
    Item,
    Lost,
    PossibleGap,
    Purpose,
    Resumed,
    Session,
    State,
    Stopped,
    split,
)
from service.cometd.actions import Send
from service.errors import BadInput, TransportFailed


def test_closing_drains_then_disconnects() -> None:
    play = Play()
    play.steady()
    play.confirm(*play.poll(1))
    play.next()
    assert not play.session.interrupt()
    play.session.close(play.now, keep=False)
    assert play.next() is Purpose.CONNECT
    assert play.session.state is State.DISCONNECTING
    assert play.sent[0]["advice"] == {"timeout": 0}
    assert play.sent[0]["ext"] == {"ack": 2}
    (delivery,) = play.reply({"successful": True, "ext": {"ack": 3}}, before=(event(2),))
    play.confirm(delivery)
    assert play.next() is Purpose.DISCONNECT
    assert play.sent[0]["clientId"] == "c1"
    assert play.reply({"successful": True}) == []
    stopped = play.next()
    assert isinstance(stopped, Stopped)
    assert isinstance(delivery, Delivery)
    assert (stopped.kept, stopped.since) == (False, delivery.at)
    assert play.session.resume_state(()) is None


def test_closing_does_not_disconnect_before_the_last_delivery_is_confirmed() -> None:
    play = Play()
    play.steady()
    play.session.close(play.now, keep=False)
    (delivery,) = play.poll(1)
    for _ in range(5):
        assert isinstance(delivery, Delivery)
        play.session.withheld(delivery, play.now)
        (delivery,) = play.poll(1)
        assert play.sent[0]["ext"] == {"ack": 1}
    play.confirm(delivery)
    assert play.next() is Purpose.DISCONNECT


def test_keeping_the_session_sends_no_disconnect() -> None:
    play = Play()
    play.steady()
    play.session.close(play.now, keep=True)
    play.poll()
    stopped = play.next()
    assert isinstance(stopped, Stopped)
    assert stopped.kept
    state = play.session.resume_state(())
    assert state is not None
    assert state.idle
    assert (state.client_id, state.channels) == ("c1", (CALLS,))


def test_closing_gives_up_on_a_server_that_does_not_answer() -> None:
    play = Play(ack=False)
    play.steady()
    play.session.close(play.now, keep=False)
    tries = 0
    while play.next() is Purpose.CONNECT:
        play.fail()
        tries += 1
    assert tries == 3
    state = play.session.resume_state(())
    assert state is not None
    assert not state.idle


def test_closing_before_anything_is_open_ends_at_once() -> None:
    play = Play()
    play.session.close(play.now, keep=False)
    assert isinstance(play.next(), Stopped)
    play = Play()
    play.shake()
    play.session.close(play.now, keep=False)
    assert play.next() is Purpose.DISCONNECT


def test_a_session_lost_while_closing_is_not_made_anew() -> None:
    play = Play()
    play.steady()
    play.session.close(play.now, keep=False)
    play.next()
    (lost,) = play.reply({**UNKNOWN})
    assert isinstance(lost, Lost)
    assert isinstance(play.next(), Stopped)


def test_an_interrupted_poll_without_acknowledgement_is_heard_before_the_end() -> None:
    play = Play(ack=False)
    play.steady()
    play.next()
    assert play.session.interrupt()
    play.session.close(play.now, keep=False)
    assert play.next() is Purpose.CONNECT
    (delivery,) = play.session.older_answered(split(b'[{"channel":"/v2/me/calls","data":1}]'), play.wall)
    assert numbers(delivery) == [1]
    play.confirm(delivery)
    assert play.reply({"successful": True}) == []
    assert play.next() is Purpose.DISCONNECT


@pytest.mark.parametrize(
    ("error", "gap"),
    [(TransportFailed("HTTP 500", status=500), False), (TransportFailed("cut"), True)],
)
def test_how_an_interrupted_poll_ends_decides_on_the_gap(error: TransportFailed, *, gap: bool) -> None:
    play = Play(ack=False)
    play.steady()
    play.next()
    assert play.session.interrupt()
    play.session.close(play.now, keep=True)
    play.next()
    items = play.session.older_failed(error, play.wall)
    assert [type(item) for item in items] == ([PossibleGap] if gap else [])


def test_an_interrupted_poll_that_is_still_held_is_released_by_another_connect() -> None:
    play = Play(ack=False)
    play.steady()
    play.next()
    assert play.session.interrupt()
    play.session.close(play.now, keep=False)
    assert play.next() is Purpose.CONNECT
    assert play.reply({"successful": True}) == []
    assert play.next() is Purpose.CONNECT
    assert play.session.older_failed(TransportFailed("HTTP 500", status=500), play.wall) == []
    assert play.reply({"successful": True}) == []
    assert play.next() is Purpose.DISCONNECT


def test_an_interrupted_poll_that_never_ends_is_a_possible_gap() -> None:
    play = Play(ack=False)
    play.steady()
    play.next()
    assert play.session.interrupt()
    play.session.close(play.now, keep=False)
    items: list[Item] = []
    while play.next() is Purpose.CONNECT:
        items += play.reply({"successful": True})
    assert [type(item) for item in items] == [PossibleGap]


def test_a_session_is_taken_over_with_its_last_acknowledgement() -> None:
    play = Play(resume=resume_state(), acked=7)
    assert play.next() is Purpose.CONNECT
    assert play.sent[0]["clientId"] == "c1"
    assert play.sent[0]["ext"] == {"ack": 7}
    assert play.sent[0]["advice"] == {"timeout": 0}
    resumed, delivery = play.reply({"successful": True, "ext": {"ack": 9}}, before=(event(1),))
    assert isinstance(resumed, Resumed)
    assert (resumed.since, resumed.acknowledged) == (5.0, True)
    assert numbers(delivery) == [1]


def test_a_takeover_that_comes_too_late_is_a_loss() -> None:
    play = Play(resume=resume_state(), acked=7)
    play.next()
    (lost,) = play.reply({**UNKNOWN})
    assert isinstance(lost, Lost)
    assert lost.since == 5.0
    assert play.next() is Purpose.HANDSHAKE


@pytest.mark.parametrize("idle", [True, False])
def test_a_takeover_without_acknowledgement_doubts_what_a_crash_may_have_cost(*, idle: bool) -> None:
    play = Play(ack=False, resume=resume_state(acknowledged=False, idle=idle))
    items = play.poll()
    assert [type(item) for item in items] == ([Resumed] if idle else [PossibleGap, Resumed])
    assert items[-1].since == 5.0  # type: ignore[union-attr]


def test_the_state_to_save_with_a_delivery_is_the_one_after_it() -> None:
    play = Play()
    play.steady()
    before = play.session.resume_state(())
    play.now += 5
    (delivery,) = play.poll(1)
    assert isinstance(delivery, Delivery)
    after = play.session.resume_state((), delivery)
    assert before is not None
    assert after is not None
    assert (before.since, after.since) == (play.wall - 5, play.wall)
    assert play.session.resume_state(()) == before
    play.confirm(delivery)
    assert play.session.resume_state(()) == after


def test_a_takeover_must_fit() -> None:
    with pytest.raises(BadInput, match=r"resume\.channels"):
        Session(("/other",), resume=resume_state())
    with pytest.raises(BadInput, match=r"resume\.connection_type"):
        Session((CALLS,), resume=resume_state(connection_type="websocket"))


def test_secrets_are_not_shown() -> None:
    play = Play()
    shown = [repr(item) for item in play.open("secret-id")]
    shown += [repr(item) for item in play.poll(1)]
    play.confirm()
    state = play.session.resume_state(({"value": "secret-cookie"},))
    send = play.session.next(play.now)
    shown += [repr(send), repr(play.session), repr(state)]
    assert isinstance(send, Send)
    play.sent = json.loads(send.body)
    shown += [repr(item) for item in play.reply({"successful": False, "error": "402::secret-id is unknown"})]
    assert not [text for text in shown if "secret" in text]
