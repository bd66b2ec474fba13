from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from recording import (
    agents,
    body_of,
    event_of,
    inject,
    kinds,
    numbered,
    recorded,
    recording,
    settings_for,
    until,
)
from sqlalchemy.engine import URL

from service.errors import OutcomeUnknown
from service.log import EventLog, NewEvent
from service.postgres import Database, connect_arguments
from service.simulator import Simulator

ONE = agents(1)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, agent_count=3, timeout_ms=500) as running_simulator:
        yield running_simulator


@pytest.fixture
async def server(server_url: URL) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(**connect_arguments(server_url))
    yield connection
    await connection.close()


async def take_away(server: asyncpg.Connection[asyncpg.Record], name: str) -> None:
    """Let nobody into the database, and throw out who is in."""
    await server.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
    await server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
        name,
    )


async def give_back(server: asyncpg.Connection[asyncpg.Record], name: str) -> None:
    await server.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true')


@pytest.mark.parametrize("ack", [True, False])
async def test_while_the_database_is_away_nothing_is_acknowledged_and_afterwards_all_is_recorded(
    database: Database,
    simulator: Simulator,
    server: asyncpg.Connection[asyncpg.Record],
    tmp_path: Path,
    *,
    ack: bool,
) -> None:
    simulator.ack = ack
    settings = settings_for(database, simulator.url, tmp_path)
    async with recording(settings, ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        recorder = application.recorder.agents["15000"]
        recorder.journal.log.patience = 0.3
        bodies = inject(simulator, range(2))
        await until(application.log, "NotificationReceived", count=2)
        name = str(database.url.database)
        await take_away(server, name)
        bodies += inject(simulator, range(2, 5))
        [session] = simulator.truth.sessions.values()
        redelivered = 3 if ack else 1
        await simulator.until(lambda: all(one.responses >= redelivered for one in session.messages[2:]))
        assert not any(message.acknowledged_at for message in session.messages[2:])
        assert len(simulator.bayeux.sessions) == 1
        await give_back(server, name)
        await until(application.log, "NotificationReceived", count=5)
        bodies += inject(simulator, range(5, 6))
        await until(application.log, "NotificationReceived", count=6)
        assert await recorded(application.log) == bodies
        assert not {"SessionLost", "GapSuspected"} & set(await kinds(application.log))


async def test_facts_outlast_the_database_s_absence_and_keep_their_order(
    database: Database,
    simulator: Simulator,
    server: asyncpg.Connection[asyncpg.Record],
    tmp_path: Path,
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        recorder = application.recorder.agents["15000"]
        recorder.journal.log.patience = 0.2
        name = str(database.url.database)
        await take_away(server, name)
        simulator.kill_session("15000")
        await simulator.until(lambda: len(simulator.bayeux.sessions_of("15000")) == 1)
        await simulator.until(lambda: recorder.journal.waiting >= 3)
        await give_back(server, name)
        await until(application.log, "CallsSnapshotTaken", count=2)  # by themselves: nothing else happens
        inject(simulator, range(1))
        await until(application.log, "NotificationReceived")
        told = ["SessionOpened", "CallsSnapshotTaken"]
        assert await kinds(application.log) == [*told, "SessionLost", *told, "NotificationReceived"]


async def test_a_log_that_is_stuck_costs_no_session_and_is_not_piled_upon(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.max_interval_ms = 2_000
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        application.recorder.agents["15000"].journal.log.patience = 0.2
        appends = 0
        append = EventLog.append

        async def counted(log: EventLog, events: Sequence[NewEvent], **more: Any) -> list[int]:
            nonlocal appends
            appends += 1
            return await append(log, events, **more)

        monkeypatch.setattr(EventLog, "append", counted)
        async with database.pool.acquire() as stuck, stuck.transaction():
            await stuck.execute("SELECT 1 FROM log_head FOR UPDATE")
            bodies = inject(simulator, range(3))
            [session] = simulator.truth.sessions.values()
            await simulator.until(lambda: all(one.responses >= 3 for one in session.messages))
            assert appends == 1
        await until(application.log, "NotificationReceived", count=3)
        assert await recorded(application.log) == bodies
        assert "SessionLost" not in await kinds(application.log)


async def test_of_two_versions_under_one_id_the_first_is_kept_and_the_other_is_an_alarm(
    database: Database,
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        append = EventLog.append
        [session] = simulator.bayeux.sessions.values()

        async def answer_lost(log: EventLog, events: Sequence[NewEvent], **more: Any) -> list[int]:
            """Commit, lose the answer, and let the server change what it sends again."""
            monkeypatch.setattr(EventLog, "append", append)
            await append(log, events, **more)
            session.queue[0][1].body = numbered(99)
            inject(simulator, range(2, 3))
            raise OutcomeUnknown("the answer was lost")

        monkeypatch.setattr(EventLog, "append", answer_lost)
        inject(simulator, range(2))
        await until(application.log, "NotificationReceived", count=3)
        assert await recorded(application.log) == [numbered(0), numbered(1), numbered(2)]
        [alarm] = await until(application.log, "UnreadableReceived")
        assert body_of(alarm).endswith(numbered(99))
        assert "other bytes" in event_of(alarm).reason
        assert any(record.levelname == "ERROR" for record in caplog.records)
        await simulator.until(lambda: all(one.acknowledged_at for one in session.truth.messages))
        row = await database.pool.fetchrow("SELECT delivered FROM recorder_session")
        assert row is not None
        assert row["delivered"] == 3


async def test_a_fact_between_a_lost_answer_and_the_redelivery_does_not_leave_the_count_behind(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        append = EventLog.append

        async def answer_lost(log: EventLog, events: Sequence[NewEvent], **more: Any) -> list[int]:
            """Commit, lose the answer, and have the next response garbled, which is a fact."""
            monkeypatch.setattr(EventLog, "append", append)
            await append(log, events, **more)
            simulator.faults.add("garble_response", agent="15000")
            raise OutcomeUnknown("the answer was lost")

        monkeypatch.setattr(EventLog, "append", answer_lost)
        bodies = inject(simulator, range(2))
        await until(application.log, "UnreadableReceived")
        [session] = simulator.truth.sessions.values()
        await simulator.until(lambda: all(one.acknowledged_at for one in session.messages))
        assert await database.pool.fetchval("SELECT delivered FROM recorder_session") == 2
        assert await recorded(application.log) == bodies


async def test_an_element_too_large_for_one_event_is_kept_whole_in_parts(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    large = json.dumps({"channel": "/v2/me/calls", "data": {"number": "y" * (3 << 19)}}).encode()
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        simulator.inject("15000", large)
        bodies = inject(simulator, range(1))
        found = await until(application.log, "NotificationReceived", count=5)
        assert b"".join(map(body_of, found[:4])) == large
        assert [(event_of(one).part, event_of(one).parts) for one in found[:4]] == [
            (n, 4) for n in (1, 2, 3, 4)
        ]
        assert [event_of(one).count for one in found] == [0, 1, 2, 3, 4]
        assert body_of(found[4]) == bodies[0]


async def test_text_that_no_unicode_can_hold_is_recorded(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    odd = b'{"channel":"/v2/me/\\ud800","data":{"call":{"id":"\\udfff"}}}'
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        simulator.inject("15000", odd)
        [found] = await until(application.log, "NotificationReceived")
        assert body_of(found) == odd


async def fails(_delivery: object) -> None:
    raise ZeroDivisionError


async def test_one_agent_s_failure_touches_no_other(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path), agents(2)) as application:
        await until(application.log, "CallsSnapshotTaken", count=2)
        broken = application.recorder.agents["15000"]
        monkeypatch.setattr(broken, "_deliver", fails)
        inject(simulator, range(1), "15000")
        bodies = inject(simulator, range(3), "15001")
        await until(application.log, "NotificationReceived", count=3)
        assert await recorded(application.log, "15001") == bodies
        await simulator.until(lambda: broken.loop.failures > 0)
        monkeypatch.undo()
        await until(application.log, "NotificationReceived", count=4)
        assert await recorded(application.log, "15000") == [numbered(0)]
