"""What coverage says of sessions: those in the log, and those of which the log can say nothing more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from proxy import FaultProxy
from recording import agents, event_of, fall_over, inject, recorded, recording, settings_for, until
from sqlalchemy.engine import URL
from transfer_site import open_site

from service.app import Application
from service.config import Settings
from service.postgres import Database
from service.recorder import Status, list_sessions
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
    assert await application.engine.reached(await application.log.next_position() - 1, timeout_s=60)
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
        async with asyncio.timeout(30):
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


async def test_while_polls_fail_an_attended_session_is_certain_up_to_its_last_answer(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    simulator.max_interval_ms = 60_000
    async with (
        FaultProxy(simulator.port, random.Random(1)) as proxy,
        projected(settings_for(database, proxy.url, tmp_path)) as application,
    ):
        await until(application.log, "CallsSnapshotTaken")
        bodies = inject(simulator, range(1))
        await until(application.log, "NotificationReceived")
        assert kinds(await coverage(application)) == ["complete"]
        proxy.down = True
        proxy.drop()
        bodies += inject(simulator, range(1, 3))
        recorder = application.recorder.agents["15000"]
        async with asyncio.timeout(30):
            while recorder.status is not Status.RETRYING:  # noqa: ASYNC110 nothing is logged that could be awaited
                await asyncio.sleep(0.02)
        await application.recorder.ownership.beat()
        [row] = await list_sessions(database, "retrying")
        complete, doubtful = await coverage(application)
        assert (complete["kind"], doubtful["kind"], doubtful["to"]) == ("complete", "doubtful", None)
        assert doubtful["why"] == f"polls fail: {row['reason']}"
        assert row["reason"]
        assert datetime.fromisoformat(complete["to"]) == datetime.fromisoformat(doubtful["from"])
        missed = simulator.truth.published[-1]
        assert datetime.fromisoformat(doubtful["from"]).timestamp() <= missed.at
        proxy.down = False
        await until(application.log, "NotificationReceived", count=3)
        await application.recorder.ownership.beat()
        assert kinds(await coverage(application)) == ["complete"]
        assert await recorded(application.log) == bodies


async def test_a_transfer_during_a_gap_names_it(database_url: URL, simulator: Simulator) -> None:
    async with open_site(database_url, simulator, users=("15000", "15001"), folding=True) as site:
        before, during = await site.seen_call(), simulator.place_call("15001", "15000")
        await site.command(before.id)
        whole = await site.ended(before.id)
        simulator.answer(during.id, "15000")
        await site.recorded(f"call-{during.id}", lambda event: b'"Established"' in event.payload)
        await site.seen_call()  # brought by a poll that was asked after the first transfer had ended
        simulator.faults.add("http_error", operation="handshake", agent="15000", times=None)
        simulator.kill_session("15000")
        [lost] = await until(site.log, "SessionLost")
        await site.command(during.id)
        torn = await site.ended(during.id)
        simulator.faults.clear()
        [*_, opened] = await until(site.log, "SessionOpened", count=3)
        assert await site.services.engine.reached(await site.log.next_position() - 1, timeout_s=60)
        queries = site.services.queries
        assert (await queries.transfer(whole.id))["gaps"] == []
        row = await queries.transfer(torn.id)
        [gap] = row["gaps"]
        assert gap["kind"] == "missing"
        assert datetime.fromisoformat(gap["from"]) == event_of(lost).last_alive
        assert datetime.fromisoformat(gap["to"]) == event_of(opened).at
        assert event_of(lost).last_alive <= row["requested_at"] <= event_of(opened).at
