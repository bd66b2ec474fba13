"""Sessions that are lost, and requests that fail: what is told, and when is the next try."""

from __future__ import annotations

from typing import Any

import pytest
from play import UNKNOWN, Play, event, numbers

from service.cometd import (
    Delivery,
    Evidence,
    Lost,
    Opened,
    PossibleGap,
    Purpose,
    Refused,
    Resumed,
    State,
)
from service.errors import ProtocolViolation, TransportFailed


@pytest.mark.parametrize(
    "reply",
    [
        {"error": "402::Unknown client"},
        {"error": "402::session_unknown", "advice": {"reconnect": "handshake", "interval": 0}},
        {"error": "402:c1:Unknown Client ID"},
        {"error": "401::No client ID"},
        {"error": "403::Unknown client"},
        {"error": "403::forbidden", "advice": {"reconnect": "handshake"}},
        {"advice": {"reconnect": "handshake"}},
    ],
)
def test_a_lost_session_is_reported_and_made_anew(reply: dict[str, Any]) -> None:
    play = Play()
    play.steady()
    play.now += 7
    alive = play.wall
    play.poll()
    play.now += 20
    assert play.next() is Purpose.CONNECT
    (lost,) = play.reply({"successful": False, **reply})
    assert isinstance(lost, Lost)
    assert (lost.client_id, lost.since, lost.at) == ("c1", alive, play.wall)
    assert "c1" not in lost.cause
    assert play.next() is Purpose.HANDSHAKE
    assert play.paused <= 1.0
    play.reply({"successful": True, "clientId": "c2", "ext": {"ack": True}})
    assert play.next() is Purpose.SUBSCRIBE
    (opened,) = play.reply({"successful": True})
    assert isinstance(opened, Opened)
    assert play.next() is Purpose.CONNECT
    assert play.sent[0]["ext"] == {"ack": 0}


def test_an_error_is_told_as_a_person_can_read_it() -> None:
    play = Play()
    play.steady()
    assert play.next() is Purpose.CONNECT
    [lost] = play.reply({"successful": False, "error": "402::c1 gone \x00 " + "x" * (2 << 20)})
    assert isinstance(lost, Lost)
    assert lost.cause.startswith("402 … gone � xxx")
    assert len(lost.cause) < 1_000


def test_the_gap_begins_where_the_last_confirmed_answer_came() -> None:
    play = Play()
    play.steady()
    (first,) = play.poll(1)
    play.confirm(first)
    play.now += 5
    (second,) = play.poll(2)
    assert isinstance(second, Delivery)
    play.session.withheld(second, play.now)
    play.next()
    _, lost = play.reply({**UNKNOWN})
    assert isinstance(lost, Lost)
    assert isinstance(first, Delivery)
    assert lost.since == first.at


def test_a_session_lost_before_it_opened_is_not_reported_as_one() -> None:
    play = Play()
    play.shake()
    play.next()
    assert play.reply({**UNKNOWN}) == []
    assert play.next() is Purpose.HANDSHAKE


def test_a_loop_of_losses_slows_down() -> None:
    play = Play()
    pauses = []
    for _ in range(30):
        play.shake()
        pauses.append(play.paused)
        play.next()
        play.reply({**UNKNOWN})
    assert max(pauses) > 20
    assert max(pauses) <= 60


def test_the_servers_goodbye_is_a_loss() -> None:
    play = Play(ack=False)
    play.steady()
    play.next()
    delivery, lost = play.reply(
        {"successful": True}, before=(event(1),), after=({"channel": "/meta/disconnect", "successful": True},)
    )
    assert numbers(delivery) == [1]
    assert isinstance(lost, Lost)
    assert play.next() is Purpose.HANDSHAKE


def test_server_trouble_in_a_reply_is_retried_with_back_off() -> None:
    for error in ("500::oops", "503::busy", "oops", ""):
        play = Play()
        play.steady()
        for _ in range(5):
            assert play.next() is Purpose.CONNECT
            assert play.reply({"successful": False, "error": error}) == []
            assert play.session.state is State.RETRYING
        assert play.paused > 0
        assert play.poll() == []


@pytest.mark.parametrize("code", [400, 403, 404, 405])
def test_a_connect_that_is_our_mistake_is_not_looped(code: int) -> None:
    play = Play()
    play.steady()
    play.next()
    lost, refused = play.reply({"successful": False, "error": f"{code}::bad"})
    assert isinstance(lost, Lost)
    assert isinstance(refused, Refused)
    assert refused.code == code
    assert play.next() is Purpose.HANDSHAKE
    assert play.paused >= 30


def test_failed_polls_are_retried_at_once_then_with_back_off() -> None:
    play = Play()
    play.steady()
    pauses = []
    for _ in range(200):
        assert play.next() is Purpose.CONNECT
        pauses.append(play.paused)
        play.fail()
    assert pauses[1] == 0.0
    assert 0 < pauses[2] <= 0.5
    assert 30 < max(pauses) <= 60
    play.poll()
    play.next()
    play.fail()
    play.next()
    assert play.paused == 0.0


def test_why_requests_fail_is_told_once_until_polls_succeed() -> None:
    play = Play()
    play.open()
    for cause in ("cut", "cut", "HTTP 502", "HTTP 502"):
        play.next()
        play.fail(TransportFailed(cause))
    assert play.failing == ["cut", "HTTP 502"]
    play.poll()
    play.next()
    play.fail(TransportFailed("HTTP 502"))
    assert play.failing == ["cut", "HTTP 502", "HTTP 502"]


def test_a_failed_poll_is_a_possible_gap_only_without_acknowledgement_and_if_it_was_sent() -> None:
    for ack, sent, gap in [(True, True, False), (False, True, True), (False, False, False)]:
        play = Play(ack=ack)
        play.steady()
        alive = play.wall
        play.next()
        items = play.fail(TransportFailed("cut", sent=sent))
        assert [type(item) for item in items] == ([PossibleGap] if gap else [])
        play.next()
        items = play.fail(TransportFailed("cut", sent=sent))
        assert items == []
        play.now += 3
        items = play.poll(1)
        if gap:
            resumed = items.pop(0)
            assert isinstance(resumed, Resumed)
            assert (resumed.since, resumed.at) == (alive, play.wall)
        assert numbers(*items) == [1]


def test_a_gap_in_doubt_that_ends_in_a_loss_runs_on_to_the_next_opening() -> None:
    play = Play(ack=False)
    play.steady()
    alive = play.wall
    play.next()
    (gap,) = play.fail()
    play.next()
    (lost,) = play.reply({**UNKNOWN})
    assert isinstance(gap, PossibleGap)
    assert isinstance(lost, Lost)
    assert gap.since == lost.since == alive


def test_a_body_that_does_not_parse_is_evidence_once() -> None:
    play = Play()
    play.steady()
    play.next()
    (evidence,) = play.fail(ProtocolViolation("no JSON", body=b"<html>"))
    assert isinstance(evidence, Evidence)
    assert evidence.body == b"<html>"
    play.next()
    assert play.fail(ProtocolViolation("no JSON", body=b"<html>")) == []
    play.next()
    (evidence,) = play.fail(ProtocolViolation("no JSON", body=b"<other>"))
    assert isinstance(evidence, Evidence)


@pytest.mark.parametrize("ack", [True, False])
@pytest.mark.parametrize("events", [(), (1,)])
def test_what_came_to_the_server_after_a_poll_was_asked_is_not_certain(
    *, ack: bool, events: tuple[int, ...]
) -> None:
    play = Play(ack=ack)
    play.steady()
    assert play.next() is Purpose.CONNECT
    asked_at = play.wall
    play.now += 20  # the answer is written, and travels
    play.batch += 1
    ext = {"ext": {"ack": play.batch}} if ack else {}
    play.confirm(*play.reply({"successful": True, **ext}, before=tuple(event(n) for n in events)))
    assert play.next() is Purpose.CONNECT
    [lost] = play.reply(UNKNOWN)
    assert isinstance(lost, Lost)
    assert lost.since == asked_at
