"""The state machine, rule by rule. No sockets, no clock but a number."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from service.cometd import (
    Delivery,
    Evidence,
    Failing,
    Item,
    Lost,
    MultipleClients,
    Opened,
    PossibleGap,
    Purpose,
    Refused,
    Resumed,
    ResumeState,
    Session,
    State,
    Stopped,
    split,
)
from service.cometd.actions import Finish, Listen, Pause, Send
from service.errors import BadInput, CometdError, ProtocolViolation, TransportFailed

CALLS = "/v2/me/calls"
RETRY = {"reconnect": "retry", "interval": 0, "timeout": 20000}
UNKNOWN = {"successful": False, "error": "402::Unknown client"}


def event(n: int) -> dict[str, Any]:
    return {"channel": CALLS, "data": n}


def numbers(delivery: Item) -> list[int]:
    assert isinstance(delivery, Delivery)
    return [message.data for message in delivery.messages]


class Play:
    """Plays the server and the consumer to one session. Time passes only in pauses and by `now`."""

    def __init__(self, *, ack: bool = True, channels: tuple[str, ...] = (CALLS,), **options: Any) -> None:
        self.session = Session(channels, rng=random.Random(4), **options)
        self.ack = ack
        self.batch = 0
        self.now = 1000.0
        self.paused = 0.0
        self.sent: list[dict[str, Any]] = []
        self.timeout = 0.0
        self.failing: list[str] = []

    @property
    def wall(self) -> float:
        return self.now + 1e9

    def next(self) -> Purpose | Stopped:
        """Go on to the next request, or the end, noting the pause before it."""
        self.paused = 0.0
        while True:
            match self.session.next(self.now):
                case Pause(seconds=seconds):
                    self.paused += seconds
                    self.now += seconds
                case Send(purpose=purpose, body=body, timeout=timeout):
                    self.sent, self.timeout = json.loads(body), timeout
                    return purpose
                case Finish(stopped=stopped):
                    return stopped
                case Listen():
                    raise AssertionError("a request is under way")

    def reply(
        self, *replies: dict[str, Any], before: tuple[Any, ...] = (), after: tuple[Any, ...] = ()
    ) -> list[Item]:
        """Answer what was sent last: one reply to each message, or the same to all."""
        given = replies * len(self.sent) if len(replies) == 1 else replies
        answers = [
            {"id": sent["id"], "channel": sent["channel"], **reply}
            for sent, reply in zip(self.sent, given, strict=True)
        ]
        return self.raw([*before, *answers, *after])

    def raw(self, body: Any) -> list[Item]:
        return self.told(self.session.answered(split(json.dumps(body).encode()), self.now, self.wall))

    def fail(self, error: CometdError | None = None) -> list[Item]:
        return self.told(self.session.failed(error or TransportFailed("cut"), self.now, self.wall))

    def told(self, items: list[Item]) -> list[Item]:
        """Set aside what is said of requests that fail."""
        self.failing += [item.cause for item in items if isinstance(item, Failing)]
        return [item for item in items if not isinstance(item, Failing)]

    def shake(self, client_id: str = "c1", **more: Any) -> list[Item]:
        assert self.next() is Purpose.HANDSHAKE
        ext = {"ext": {"ack": True}} if self.ack else {}
        return self.reply({"successful": True, "clientId": client_id, "advice": RETRY, **ext, **more})

    def open(self, client_id: str = "c1") -> list[Item]:
        self.shake(client_id)
        assert self.next() is Purpose.SUBSCRIBE
        return self.reply({"successful": True})

    def poll(self, *events: int, **more: Any) -> list[Item]:
        """Answer the next connect with these events."""
        assert self.next() is Purpose.CONNECT
        self.batch += 1
        ext = {"ext": {"ack": self.batch}} if self.ack else {}
        return self.reply({"successful": True, **ext, **more}, before=tuple(event(n) for n in events))

    def confirm(self, *items: Item) -> None:
        for item in items:
            if isinstance(item, Delivery):
                item.confirm()
                self.session.confirmed(item)

    def steady(self) -> None:
        """Come to the steady state."""
        self.open()
        self.confirm(*self.poll())


# Opening


def test_the_order_is_handshake_subscribe_a_quick_connect_then_held_ones() -> None:
    play = Play(channels=(CALLS, "/v2/me/*"))
    assert play.session.state == "unconnected"
    assert play.next() is Purpose.HANDSHAKE
    assert play.session.state == "handshaking"
    (hello,) = play.sent
    assert hello["version"] == hello["minimumVersion"] == "1.0"
    assert hello["supportedConnectionTypes"] == ["long-polling"]
    assert hello["ext"] == {"ack": True}
    assert "clientId" not in hello
    assert play.reply({"successful": True, "clientId": "c1", "ext": {"ack": True}, "advice": RETRY}) == []

    assert play.next() is Purpose.SUBSCRIBE
    assert play.session.state == "subscribing"
    assert [message["subscription"] for message in play.sent] == [CALLS, "/v2/me/*"]
    assert {message["clientId"] for message in play.sent} == {"c1"}
    (opened,) = play.reply({"successful": True})
    assert isinstance(opened, Opened)
    assert (opened.client_id, opened.acknowledged, opened.channels) == ("c1", True, (CALLS, "/v2/me/*"))
    assert opened.advice.timeout == 20.0
    assert opened.at == play.wall

    assert play.next() is Purpose.CONNECT
    assert play.session.state == "connecting"
    (connect,) = play.sent
    assert connect["advice"] == {"timeout": 0}
    assert connect["ext"] == {"ack": 0}
    assert connect["connectionType"] == "long-polling"
    assert play.timeout == 10.0
    assert play.reply({"successful": True, "ext": {"ack": 1}}) == []

    assert play.next() is Purpose.CONNECT
    assert play.session.state == "connected"
    (connect,) = play.sent
    assert "advice" not in connect
    assert connect["ext"] == {"ack": 1}
    assert play.timeout == 30.0


def test_ids_are_unique_even_beyond_a_takeover() -> None:
    play = Play()
    play.steady()
    first = int(play.sent[0]["id"])
    play.next()
    assert int(play.sent[0]["id"]) == first + 1
    successor = Session((CALLS,), rng=random.Random(5), resume=resume_state())
    send = successor.next(0.0)
    assert isinstance(send, Send)
    assert abs(int(json.loads(send.body)[0]["id"]) - first) > 1000


def test_without_the_extension_no_ack_is_sent() -> None:
    play = Play(ack=False)
    (opened,) = play.open()
    assert isinstance(opened, Opened)
    assert not opened.acknowledged
    assert play.next() is Purpose.CONNECT
    assert "ext" not in play.sent[0]


@pytest.mark.parametrize(
    ("ack", "acknowledged", "acked"),
    [
        (True, True, 0),
        ({"enabled": True, "batch": 7}, True, 7),
        ({"enabled": True}, True, 0),
        ({"enabled": False}, False, 0),
        ({}, False, 0),
        (False, False, 0),
        (1, False, 0),
        ("true", False, 0),
    ],
)
def test_the_extension_is_negotiated_in_both_dialects(ack: Any, *, acknowledged: bool, acked: int) -> None:
    play = Play(ack=False)
    play.shake(ext={"ack": ack})
    assert play.session.acknowledged is acknowledged
    assert play.session.acked == acked


def test_events_that_come_with_the_handshake_are_acknowledged_only_when_confirmed() -> None:
    for confirmed in (True, False):
        play = Play()
        assert play.next() is Purpose.HANDSHAKE
        ok = {"successful": True, "clientId": "c1", "ext": {"ack": {"enabled": True, "batch": 5}}}
        (delivery,) = play.reply(ok, after=(event(1), event(2)))
        assert numbers(delivery) == [1, 2]
        assert isinstance(delivery, Delivery)
        assert delivery.batch == 5
        if confirmed:
            play.confirm(delivery)
        else:
            play.session.withheld(delivery, play.now)
        assert play.next() is Purpose.SUBSCRIBE
        play.reply({"successful": True})
        assert play.next() is Purpose.CONNECT
        assert play.sent[0]["ext"] == {"ack": 5 if confirmed else 0}


def test_events_in_a_subscribe_response_follow_the_opening() -> None:
    play = Play(ack=False)
    play.shake()
    play.next()
    opened, delivery = play.reply({"successful": True}, before=(event(1),), after=(event(2),))
    assert isinstance(opened, Opened)
    assert numbers(delivery) == [1, 2]


def test_replies_are_known_without_ids_too() -> None:
    play = Play(channels=(CALLS, "/x"), ack=False)
    play.next()
    play.raw({"channel": "/meta/handshake", "successful": True, "clientId": "c1"})
    play.next()
    channel = "/meta/subscribe"
    (opened,) = play.raw(
        [
            {"channel": channel, "successful": True, "subscription": "/x"},
            {"channel": channel, "successful": True, "subscription": CALLS},
        ]
    )
    assert isinstance(opened, Opened)
    play.next()
    assert play.raw([{"channel": "/meta/connect", "successful": True}]) == []
    assert play.session.state is State.CONNECTED


# Delivering and acknowledging


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


# Advice


def test_the_interval_is_kept() -> None:
    play = Play()
    play.steady()
    play.poll(advice={"interval": 1500, "timeout": 20000})
    play.next()
    assert play.paused == pytest.approx(1.5)


def test_transport_specific_advice_wins() -> None:
    play = Play()
    play.steady()
    play.now += 60
    play.poll(advice={"interval": 9000, "long-polling": {"interval": 1500}})
    play.next()
    assert play.paused == pytest.approx(1.5)


def test_the_read_time_out_is_the_advised_time_and_an_allowance_and_never_none() -> None:
    play = Play()
    play.steady()
    for advice, timeout in [({"timeout": 45000}, 55.0), ({"interval": 0}, 40.0), ({"timeout": "x"}, 40.0)]:
        play.poll(advice=advice)
        play.next()
        assert play.timeout == timeout
        play.fail()
        play.poll()


def test_advice_lasts_until_the_next() -> None:
    play = Play()
    play.steady()
    play.poll()
    play.next()
    assert play.timeout == 30.0


def test_polls_that_are_not_held_are_paced() -> None:
    play = Play()
    play.steady()
    play.poll(advice={"timeout": 0})
    play.next()
    assert play.paused == pytest.approx(0.5)
    play.reply({"successful": True, "ext": {"ack": 5}}, before=(event(1),))
    play.next()
    assert play.paused == 0.0


def test_advice_to_handshake_ends_the_session() -> None:
    play = Play()
    play.steady()
    delivery, lost = play.poll(1, advice={"reconnect": "handshake"})
    assert isinstance(delivery, Delivery)
    assert delivery.batch is None
    assert isinstance(lost, Lost)
    assert play.next() is Purpose.HANDSHAKE


@pytest.mark.parametrize("advice", [{"reconnect": "none"}, {"interval": -1}])
def test_advice_to_give_up_stops(advice: dict[str, Any]) -> None:
    play = Play()
    play.steady()
    (lost,) = play.poll(advice=advice)
    assert isinstance(lost, Lost)
    stopped = play.next()
    assert isinstance(stopped, Stopped)
    assert not stopped.kept
    assert play.session.state is State.STOPPED


def test_old_advice_does_not_outlive_its_session() -> None:
    play = Play()
    play.steady()
    play.next()
    play.reply({**UNKNOWN, "advice": {"reconnect": "handshake", "interval": 0}})
    assert play.next() is Purpose.HANDSHAKE
    play.reply({"successful": True, "clientId": "c2"})
    assert play.next() is Purpose.SUBSCRIBE
    (opened,) = play.reply({"successful": True})
    assert isinstance(opened, Opened)


def test_other_clients_with_our_cookies_are_reported_once() -> None:
    play = Play()
    play.steady()
    (told,) = play.poll(advice={"multiple-clients": True, "interval": 2000})
    assert isinstance(told, MultipleClients)
    assert told.advice.interval == 2.0
    play.next()
    assert play.paused == pytest.approx(2.0)
    assert play.reply({"successful": True, "ext": {"ack": 9}}) == []


# Losing


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


# Refusals


@pytest.mark.parametrize(
    "reply",
    [
        {"successful": False, "error": "403::Handshake denied"},
        {"successful": False, "error": "401::who", "advice": {"reconnect": "handshake"}},
        {"successful": False, "error": "400::bad"},
        {"successful": False},
        {"successful": True},
        {"successful": True, "clientId": ""},
        {"successful": True, "clientId": 7},
        {"successful": True, "clientId": "c1", "supportedConnectionTypes": ["websocket"]},
    ],
)
def test_a_refused_handshake_is_reported_and_retried_slowly(reply: dict[str, Any]) -> None:
    play = Play()
    waits = []
    for _ in range(6):
        assert play.next() is Purpose.HANDSHAKE
        waits.append(play.paused)
        (refused,) = play.reply(reply)
        assert isinstance(refused, Refused)
        assert refused.retry_in is not None
    assert waits[0] == 0.0
    assert all(least <= wait for least, wait in zip((30, 60, 120, 240, 450), waits[1:], strict=True))


def test_a_handshake_that_may_not_be_repeated_stops() -> None:
    play = Play()
    play.next()
    assert play.reply({"successful": False, "error": "403::denied", "advice": {"reconnect": "none"}}) == []
    stopped = play.next()
    assert isinstance(stopped, Stopped)
    assert "403" in stopped.reason


def test_a_handshake_in_server_trouble_is_simply_repeated() -> None:
    play = Play()
    play.next()
    assert play.reply({"successful": False, "error": "500::oops"}) == []
    assert play.next() is Purpose.HANDSHAKE
    assert play.paused == 0.0


@pytest.mark.parametrize("status", [401, 403])
def test_http_says_who_is_not_let_in(status: int) -> None:
    play = Play()
    play.steady()
    play.next()
    (lost,) = play.fail(TransportFailed(f"HTTP {status}", status=status))
    assert isinstance(lost, Lost)
    assert play.next() is Purpose.HANDSHAKE
    assert play.paused <= 1.0
    (refused,) = play.fail(TransportFailed(f"HTTP {status}", status=status))
    assert isinstance(refused, Refused)
    assert refused.status == status
    assert play.next() is Purpose.HANDSHAKE
    assert play.paused >= 30


def test_channels_refused_do_not_keep_the_others_from_being_recorded() -> None:
    play = Play(channels=("/a", CALLS, "/b"))
    play.shake()
    play.next()
    no = {"successful": False, "error": "403::denied"}
    first, second, opened = play.reply(no, {"successful": True}, no)
    assert isinstance(first, Refused)
    assert isinstance(second, Refused)
    assert (first.channel, second.channel) == ("/a", "/b")
    assert isinstance(opened, Opened)
    assert opened.channels == (CALLS,)


def test_a_subscription_refused_outright_is_retried_slowly() -> None:
    play = Play(channels=("/a", CALLS))
    play.shake()
    play.next()
    (refused,) = play.reply({"successful": False, "error": "403::denied"})
    assert isinstance(refused, Refused)
    assert refused.channel == "/a"
    assert play.next() is Purpose.HANDSHAKE
    assert play.paused >= 30


def test_a_subscription_in_server_trouble_is_repeated() -> None:
    play = Play()
    play.shake()
    play.next()
    assert play.reply({"successful": False, "error": "500::oops"}) == []
    assert play.next() is Purpose.SUBSCRIBE
    assert play.fail(TransportFailed("cut")) == []
    assert play.next() is Purpose.SUBSCRIBE
    (opened,) = play.reply({"successful": True})
    assert isinstance(opened, Opened)


# Failures


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


# Closing and going on


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


def resume_state(**changes: Any) -> ResumeState:
    fields: dict[str, Any] = {
        "client_id": "c1",
        "cookies": (),
        "connection_type": "long-polling",
        "acknowledged": True,
        "channels": (CALLS,),
        "since": 5.0,
        "idle": False,
    }
    return ResumeState(**{**fields, **changes})


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


# Streaming transports


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


# Discretion


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
