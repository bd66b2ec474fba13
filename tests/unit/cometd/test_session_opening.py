"""How a session opens, and what keeps it from opening."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from play import CALLS, RETRY, Play, event, numbers, resume_state

from service.cometd import (
    Delivery,
    Lost,
    Opened,
    Purpose,
    Refused,
    Session,
    State,
    Stopped,
)
from service.cometd.actions import Send
from service.errors import TransportFailed


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
