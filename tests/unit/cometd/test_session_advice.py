"""What the server advises is done."""

from __future__ import annotations

from typing import Any

import pytest
from play import UNKNOWN, Play, event

from service.cometd import (
    Delivery,
    Lost,
    MultipleClients,
    Opened,
    Purpose,
    State,
    Stopped,
)


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
