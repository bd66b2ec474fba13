"""What coverage says of sessions: those in the log, and those of which the log can say nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from recording import agents, fall_over, inject, recording, settings_for, until

from service.app import Application
from service.config import Settings
from service.postgres import Database
from service.recorder import list_sessions
from service.recorder.ownership import UNATTENDED
from service.simulator import Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, agent_count=3, timeout_ms=500) as running_simulator:
        yield running_simulator


@asynccontextmanager
async def projected(settings: Settings, *, crash: bool = False) -> AsyncIterator[Application]:
    """An application that records and projects; with `crash` it leaves nothing in good order."""
    async with recording(settings, agents(1), crash=crash) as application:
        application.engine.loop.start()
        try:
            yield application
        finally:
            await application.engine.loop.stop()


async def coverage(application: Application) -> list[dict[str, Any]]:
    assert await application.engine.reached(await application.log.next_position() - 1, timeout_s=20)
    return await application.queries.coverage("15000")


def kinds(spans: list[dict[str, Any]]) -> list[str]:
    return [span["kind"] for span in spans]


async def test_after_a_crash_nothing_is_known_until_a_successor_has_come(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    settings = settings_for(database, simulator.url, tmp_path)
    async with projected(settings, crash=True) as first:
        await until(first.log, "CallsSnapshotTaken")
        inject(simulator, range(1))
        await until(first.log, "NotificationReceived")
        assert kinds(await coverage(first)) == ["complete"]
        await fall_over(first)
        async with asyncio.timeout(20):
            while not await list_sessions(database, UNATTENDED):  # noqa: ASYNC110 Postgres lets go of a lock
                await asyncio.sleep(0.02)
        left = await database.pool.fetchval("SELECT alive_at FROM recorder_session")
        complete, doubtful = await coverage(first)
        assert (complete["kind"], doubtful["kind"]) == ("complete", "doubtful")
        assert datetime.fromisoformat(complete["to"]) == datetime.fromisoformat(doubtful["from"]) == left
        assert (doubtful["to"], doubtful["why"]) == (None, "no process records the agent")
    async with projected(settings) as second:
        await until(second.log, "SessionResumed")
        assert kinds(await coverage(second)) == ["complete"]
        simulator.kill_session("15000")
        await until(second.log, "SessionOpened", count=2)
        assert kinds(await coverage(second)) == ["complete", "missing", "complete"]
