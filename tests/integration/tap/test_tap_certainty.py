"""What the tap holds for certain: a gap begins before all that may be missing in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from accounting import account
from tapping import DEADLINE_S, application, inject, tapped

from service.errors import DatabaseUnavailable
from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator

CALLS = "/v2/me/calls"


@pytest.mark.parametrize("ack", [True, False])
async def test_what_was_published_while_the_last_answer_travelled_lies_in_the_gap(
    database: Database, log: EventLog, *, ack: bool
) -> None:
    """It is not in that answer, which was written before, and no other comes: the session is lost."""
    async with (
        Simulator(seed=1, ack=ack) as simulator,
        tapped(database, log, simulator) as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS, ack=ack)
        simulator.faults.add("delay_response", seconds=0.3)
        before = inject(simulator, range(1))
        answering = agent.hold(ack=0 if ack else None)
        [session] = simulator.bayeux.sessions_of("15000")
        await simulator.until(lambda: session.batch == 1 if ack else not session.queue)
        inject(simulator, range(1, 2))  # waits in the server for the next poll
        status, answer = await answering
        assert status == 200
        assert before[0] in answer
        simulator.bayeux.end(session, "killed")
        await agent.connect_raw(ack=1 if ack else None)
        [lost] = await site.events("SessionLost")
        assert await site.bodies() == before
        assert lost.last_alive.timestamp() <= simulator.truth.published[-1].at


async def test_what_is_not_durable_yet_is_not_written_down_as_certain(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed now leaves a session of which this answer was never recorded."""
    began, let_go = asyncio.Event(), asyncio.Event()
    append = log.append

    async def slow(events: Any, **more: Any) -> list[int]:
        began.set()
        await let_go.wait()
        return await append(events, **more)

    async with (
        Simulator(seed=1) as simulator,
        tapped(database, log, simulator, patience_s=30.0) as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        inject(simulator, range(1))
        await agent.connect_raw(ack=0)
        inject(simulator, range(1, 2))
        monkeypatch.setattr(log, "append", slow)
        answering = agent.hold(ack=1)
        await began.wait()
        await site.tap.recording.sessions.beat()
        certain = await database.pool.fetchval("SELECT alive_at FROM tap_session")
        assert certain.timestamp() <= simulator.truth.published[-1].at
        let_go.set()
        await answering


async def test_what_was_refused_is_not_certain(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has not got it and the log has not, and with the session the server's copy goes."""
    append = log.append

    async def away(*_: Any, **__: Any) -> list[int]:
        raise DatabaseUnavailable("away")

    async with (
        Simulator(seed=1) as simulator,
        tapped(database, log, simulator, policy="refuse") as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        inject(simulator, range(1))
        await agent.connect_raw(ack=0)
        inject(simulator, range(1, 2))
        monkeypatch.setattr(log, "append", away)
        status, _ = await agent.connect_raw(ack=1)
        assert status == 503
        [session] = simulator.bayeux.sessions_of("15000")
        simulator.bayeux.end(session, "killed")
        monkeypatch.setattr(log, "append", append)
        await site.until("RecordingInterrupted")
        async with asyncio.timeout(DEADLINE_S):
            while (await agent.connect_raw(ack=1))[0] == 503:  # noqa: ASYNC110 - as an application does
                await asyncio.sleep(0.05)
        [lost] = await site.events("SessionLost")
        assert len(await site.bodies()) == 1
        assert lost.last_alive.timestamp() <= simulator.truth.published[-1].at


async def test_what_waits_in_the_server_when_the_application_leaves_lies_in_a_gap(
    database: Database, log: EventLog
) -> None:
    """It goes with the session: nobody polls for it any more."""
    async with (
        Simulator(seed=1) as simulator,
        tapped(database, log, simulator) as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        await agent.connect_raw(ack=0)
        inject(simulator, range(1))
        await agent.bayeux({"channel": "/meta/disconnect"})
        told = await account(log, simulator, "15000")
        assert (told.published, told.recorded, told.missing) == (1, 0, 1)
        assert (await site.kinds())[-1] == "SessionClosed"


async def test_an_application_that_leaves_while_it_polls_leaves_no_doubt(
    database: Database, log: EventLog
) -> None:
    async with (
        Simulator(seed=1) as simulator,
        tapped(database, log, simulator) as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        held = agent.hold(ack=0)
        await agent.held()
        await agent.bayeux({"channel": "/meta/disconnect"})
        await held
        assert not await site.events("GapSuspected")
