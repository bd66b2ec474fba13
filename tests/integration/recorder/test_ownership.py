"""Who may record an agent, and that nobody acknowledges what another process goes on with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from recording import (
    agents,
    fall_over,
    inject,
    kinds,
    recorded,
    recording,
    settings_for,
    until,
)

from service.log import EventLog, NewEvent
from service.postgres import Database
from service.simulator import Simulator

ONE = agents(1)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, agent_count=3, timeout_ms=500) as running_simulator:
        yield running_simulator


async def test_one_process_records_an_agent_and_another_takes_over_when_it_dies(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    settings = settings_for(database, simulator.url, tmp_path)
    async with recording(settings, agents(3), crash=True) as first:
        await until(first.log, "SessionOpened", count=3)
        async with recording(settings, agents(3)) as second:
            looked = second.recorder.ownership
            await asyncio.wait_for(looked.loop.ready.wait(), 20)
            assert not second.recorder.agents
            bodies = inject(simulator, range(4))
            await until(first.log, "NotificationReceived", count=4)
            await fall_over(first)
            bodies += inject(simulator, range(4, 8))
            await until(second.log, "SessionResumed", count=3)
            await until(second.log, "NotificationReceived", count=8)
            assert await recorded(second.log) == bodies
            assert len(simulator.truth.sessions) == 3
            assert "SessionLost" not in await kinds(second.log)


async def test_who_has_lost_his_lock_acknowledges_nothing_until_he_has_it_back(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    settings = settings_for(database, simulator.url, tmp_path)
    async with recording(settings, ONE) as application:
        await until(application.log, "SessionOpened")
        ownership = application.recorder.ownership
        blocker = await database.connect_as_owner()
        await blocker.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
        )
        await blocker.fetchval("SELECT pg_advisory_lock($1)", ownership.number)  # the old backend lingers
        await simulator.until(lambda: not ownership.held)
        bodies = inject(simulator, range(3))
        [session] = simulator.truth.sessions.values()
        await simulator.until(lambda: all(message.responses >= 2 for message in session.messages))
        assert await recorded(application.log) == []
        assert not any(message.acknowledged_at for message in session.messages)
        await blocker.close()
        await until(application.log, "NotificationReceived", count=3)
        assert await recorded(application.log) == bodies
        assert "SessionLost" not in await kinds(application.log)


async def test_agents_that_another_has_taken_meanwhile_are_let_go(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    settings = settings_for(database, simulator.url, tmp_path)
    async with recording(settings, agents(2)) as application:
        await until(application.log, "SessionOpened", count=2)
        ownership = application.recorder.ownership
        other = await database.connect_as_owner()
        await other.execute("SELECT pg_advisory_lock(4711)")
        await other.execute("UPDATE recorder_session SET owner = 4711 WHERE agent = '15000'")
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND objsubid = 1 AND pid <> pg_backend_pid()"
        )
        await simulator.until(lambda: "15000" not in application.recorder.agents and ownership.held)
        assert list(application.recorder.agents) == ["15001"]
        assert len(simulator.bayeux.sessions) == 2  # the session is the other's now
        await other.close()


async def test_agents_that_another_has_had_meanwhile_are_taken_as_it_has_left_them(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path), agents(2)) as application:
        await until(application.log, "SessionOpened", count=2)
        recorder = application.recorder
        had, untouched = recorder.agents["15000"], recorder.agents["15001"]
        connection = await database.connect_as_owner()
        await connection.execute("UPDATE recorder_session SET owner = 4711 WHERE agent = '15000'")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND objsubid = 1 AND pid <> pg_backend_pid()"
        )
        await connection.close()
        await simulator.until(lambda: recorder.agents.get("15000", had) is not had)
        assert recorder.agents["15001"] is untouched
        await until(application.log, "SessionResumed")
        bodies = inject(simulator, range(2))
        await until(application.log, "NotificationReceived", count=2)
        assert await recorded(application.log) == bodies


class Gate:
    """Lets nothing into a log until it is opened."""

    def __init__(self, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting = False
        self._opened = asyncio.Event()
        self._append = log.append
        monkeypatch.setattr(log, "append", self._gated)

    async def _gated(self, events: Sequence[NewEvent], **more: Any) -> list[int]:
        self.waiting = True
        await self._opened.wait()
        return await self._append(events, **more)

    def open(self) -> None:
        self._opened.set()


async def test_what_comes_in_after_a_take_over_is_neither_acknowledged_nor_counted_twice(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is lost while an append is under way; the append is committed when another has the agent."""
    settings = settings_for(database, simulator.url, tmp_path)
    async with recording(settings, ONE, crash=True) as first:
        await until(first.log, "CallsSnapshotTaken")
        late = Gate(first.log, monkeypatch)
        bodies = inject(simulator, range(1))
        [session] = simulator.truth.sessions.values()
        await simulator.until(lambda: late.waiting)
        await first.recorder.ownership.loop.stop()
        async with recording(settings, ONE) as second:
            early = Gate(second.log, monkeypatch)
            await simulator.until(lambda: early.waiting)  # with SessionResumed
            late.open()
            await until(second.log, "NotificationReceived")
            await fall_over(first)
            assert not session.messages[0].acknowledged_at
            early.open()
            await simulator.until(lambda: bool(session.messages[0].acknowledged_at))
            assert await database.pool.fetchval("SELECT delivered FROM recorder_session") == 1
            bodies += inject(simulator, range(1, 3))
            await until(second.log, "NotificationReceived", count=3)
            assert await recorded(second.log) == bodies
            assert "UnreadableReceived" not in await kinds(second.log)
