from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest
from pydantic import SecretStr
from recording import until

from service import events
from service.app import Application, open_application, running
from service.config import Agent, Settings
from service.log import StoredEvent
from service.postgres import Database
from service.simulator import Simulator

AGENTS = [Agent(user=user, password=SecretStr(f"secret-{user}")) for user in ("15000", "15001", "15002")]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, agent_count=3, timeout_ms=2_000) as running_simulator:
        yield running_simulator


@pytest.fixture
async def application(database: Database, simulator: Simulator) -> AsyncIterator[Application]:
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(database_url=url, gws_url=simulator.url, settle_window_s=1)
    async with open_application(settings, AGENTS) as opened, running(opened):
        await until(opened.log, "SessionOpened", count=len(AGENTS))
        yield opened


async def test_notifications_are_recorded_byte_for_byte_in_order_and_once(
    application: Application, simulator: Simulator
) -> None:
    simulator.place_sample_calls()
    for call_id in [call.id for call in simulator.calls.values()]:
        simulator.operate(call_id, "15000", "SingleStepTransfer", destination={"phoneNumber": "15002"})
    sent = {
        agent: [
            message.body for session in simulator.truth.sessions_of(agent) for message in session.messages
        ]
        for agent in ("15000", "15001", "15002")
    }
    recorded = await until(
        application.log, "NotificationReceived", count=sum(len(bodies) for bodies in sent.values())
    )
    for agent, bodies in sent.items():
        decoded = [events.decode(event.kind, event.payload) for event in recorded]
        heard = [
            one[1]
            for one in decoded
            if one and isinstance(one[0], events.NotificationReceived) and one[0].agent == agent
        ]
        assert heard[: len(bodies)] == bodies  # later ones may have come meanwhile


async def test_a_redelivery_is_not_recorded_twice(application: Application, simulator: Simulator) -> None:
    lost = simulator.faults.add("lose_response", agent="15000", with_events=True, times=3)
    call = simulator.place_call("15001", "15000")
    simulator.answer(call.id, "15000")
    simulator.hangup(call.id, "15000")
    await until(application.log, "NotificationReceived", fits=released_at("15000"))
    assert lost.struck == 3
    found = await application.log.read(kinds=["NotificationReceived"])
    states = [
        json.loads(events.readable(event.payload)["body"])["data"]["call"]["state"]
        for event in found
        if events.readable(event.payload)["data"]["agent"] == "15000"
    ]
    assert states == ["Ringing", "Established", "Released"]


def released_at(agent: str) -> Callable[[StoredEvent], bool]:
    def fits(event: StoredEvent) -> bool:
        shown = events.readable(event.payload)
        return shown["data"]["agent"] == agent and '"state":"Released"' in shown["body"].replace(" ", "")

    return fits


@pytest.mark.parametrize(
    "element",
    [
        b'"no object"',
        b'{"channel":"/v2/me/calls","data":{"messageType":"Unheard"}}',
        b'{"channel":"/v2/me/calls","data":{"call":{"id":12}}}',
        b'{"channel":"/v2/me/calls","data":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
        b'{"channel":"/v2/me/calls","data":{"a":NaN,"a":1.0,"b":"\\ud800"}}',
    ],
)
async def test_what_makes_no_sense_is_recorded_and_does_not_stop_the_recorder(
    application: Application, simulator: Simulator, element: bytes
) -> None:
    simulator.inject("15000", element)
    [first] = await until(application.log, "NotificationReceived")
    assert first.payload.partition(b"\n")[2] == element
    assert first.stream.startswith("session-")
    simulator.place_call("15001", "15000")
    await until(application.log, "NotificationReceived", count=2)


async def test_a_lost_session_is_recorded_and_opened_again_with_a_snapshot(
    application: Application, simulator: Simulator
) -> None:
    call = simulator.place_call("15001", "15000")
    simulator.answer(call.id, "15000")
    await until(application.log, "NotificationReceived", count=4)
    simulator.kill_session("15000")
    [lost] = await until(application.log, "SessionLost")
    decoded = events.decode(lost.kind, lost.payload)
    assert decoded is not None
    assert isinstance(decoded[0], events.SessionLost)
    assert decoded[0].agent == "15000"
    assert decoded[0].last_alive is not None
    await until(application.log, "SessionOpened", count=len(AGENTS) + 1)
    snapshots = await until(application.log, "CallsSnapshotTaken", count=len(AGENTS) + 1)
    assert call.id.encode() in snapshots[-1].payload


async def test_a_wrong_password_is_recorded_as_refused(database: Database, simulator: Simulator) -> None:
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(database_url=url, gws_url=simulator.url)
    wrong = [Agent(user="15000", password=SecretStr("not-his"))]
    async with open_application(settings, wrong) as application, running(application):
        [refused] = await until(application.log, "SessionRefused")
        assert b"not-his" not in refused.payload
        assert len(simulator.truth.sessions) == 0


async def test_a_clean_end_closes_the_sessions(database: Database, simulator: Simulator) -> None:
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(database_url=url, gws_url=simulator.url)
    async with open_application(settings, AGENTS) as application:
        async with running(application):
            await until(application.log, "SessionOpened", count=len(AGENTS))
        await until(application.log, "SessionClosed", count=len(AGENTS))
    assert all(session.ended_at for session in simulator.truth.sessions.values())
