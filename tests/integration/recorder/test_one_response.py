"""Duplicates and reordering within one response, and deliveries that come again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from recording import agents, body_of, event_of, inject, kinds, recorded, recording, settings_for, until

from service.errors import DatabaseUnavailable, OutcomeUnknown
from service.log import EventLog, NewEvent
from service.postgres import Database
from service.simulator import Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, agent_count=3, timeout_ms=2_000) as running_simulator:
        yield running_simulator


@pytest.mark.parametrize(
    ("fault", "order"), [("duplicate_events", [0, 0, 1, 1, 2, 2]), ("reverse_events", [2, 1, 0])]
)
async def test_each_element_of_a_response_is_one_fact_in_the_order_of_the_wire(
    database: Database,
    simulator: Simulator,
    tmp_path: Path,
    fault: Literal["duplicate_events", "reverse_events"],
    order: list[int],
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path), agents(1)) as application:
        await until(application.log, "CallsSnapshotTaken")
        planted = simulator.faults.add(fault, with_events=True)
        bodies = inject(simulator, range(3))
        found = await until(application.log, "NotificationReceived", count=len(order))
        bodies += inject(simulator, range(3, 4))
        found = await until(application.log, "NotificationReceived", count=len(order) + 1)
        assert planted.struck == 1
        assert await recorded(application.log) == [bodies[n] for n in (*order, 3)]
        assert [event_of(event).count for event in found] == list(range(len(found)))
        assert "UnreadableReceived" not in await kinds(application.log)
        [session] = simulator.truth.sessions.values()
        await simulator.until(lambda: all(message.acknowledged_at for message in session.messages))


@pytest.mark.parametrize("written", [True, False])
async def test_a_delivery_that_comes_again_keeps_its_numbers(
    database: Database,
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    written: bool,
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path), agents(1)) as application:
        await until(application.log, "CallsSnapshotTaken")
        append = EventLog.append

        async def fails_once(log: EventLog, events: Sequence[NewEvent], **more: Any) -> list[int]:
            monkeypatch.setattr(EventLog, "append", append)
            if not written:
                raise DatabaseUnavailable("planted")
            await append(log, events, **more)
            raise OutcomeUnknown("planted")

        monkeypatch.setattr(EventLog, "append", fails_once)
        bodies = inject(simulator, range(3))
        [session] = simulator.truth.sessions.values()
        await simulator.until(lambda: all(message.acknowledged_at for message in session.messages))
        bodies += inject(simulator, range(3, 5))
        found = await until(application.log, "NotificationReceived", count=5)
        assert await recorded(application.log) == bodies
        assert [event_of(event).count for event in found] == [0, 1, 2, 3, 4]
        assert "UnreadableReceived" not in await kinds(application.log)


async def test_a_delivery_that_comes_again_in_another_order_loses_no_element(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path), agents(1)) as application:
        await until(application.log, "CallsSnapshotTaken")
        append = EventLog.append

        async def answer_lost(log: EventLog, events: Sequence[NewEvent], **more: Any) -> list[int]:
            monkeypatch.setattr(EventLog, "append", append)
            await append(log, events, **more)
            simulator.faults.add("reverse_events", with_events=True)
            raise OutcomeUnknown("planted")

        monkeypatch.setattr(EventLog, "append", answer_lost)
        bodies = inject(simulator, range(2))
        alarms = await until(application.log, "UnreadableReceived", count=2)
        assert await recorded(application.log) == bodies
        assert {body_of(alarm).partition(b"\n")[2] or body_of(alarm) for alarm in alarms} == set(bodies)
        bodies += inject(simulator, range(2, 3))
        await until(application.log, "NotificationReceived", count=3)
        assert await recorded(application.log) == bodies
