"""Telephony comes first: what happens while the log is away or slow, and afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tapping import Tapped, application, inject, tapped

from service.errors import DatabaseUnavailable
from service.log import EventLog, NewEvent
from service.postgres import Database
from service.projections.coverage import Coverage
from service.simulator import Simulator

CALLS = "/v2/me/calls"


class Weather:
    """Makes the log fail, or hang, on demand."""

    def __init__(self, log: EventLog, patch: pytest.MonkeyPatch) -> None:
        self.fails = False
        self.hangs: asyncio.Event | None = None
        self._append = log.append
        patch.setattr(log, "append", self.append)

    async def append(self, events: Sequence[NewEvent], **more: Any) -> list[int]:
        if self.hangs is not None:
            await self.hangs.wait()
        if self.fails:
            raise DatabaseUnavailable("away")
        return await self._append(events, **more)


@asynccontextmanager
async def stormy(
    database: Database, log: EventLog, patch: pytest.MonkeyPatch, **given: Any
) -> AsyncIterator[tuple[Tapped, Weather, Simulator]]:
    patch.setattr("service.tap.gate.ASK_S", 0.01)
    weather = Weather(log, patch)
    async with Simulator(seed=1) as simulator, tapped(database, log, simulator, **given) as site:
        yield site, weather, simulator


async def test_traffic_flows_unrecorded_and_the_gap_is_recorded_afterwards(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        stormy(database, log, monkeypatch) as (site, weather, simulator),
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        before = inject(simulator, range(2))
        await agent.connect(ack=0, hold_ms=0)
        weather.fails = True
        inject(simulator, range(2, 4))
        assert len(await agent.connect(ack=1, hold_ms=0)) == 3
        status, _ = await agent.operate("none", "Hold")
        assert status == 404
        assert site.tap.status()["recording"] is False
        weather.fails = False
        [interrupted] = await site.until("RecordingInterrupted")
        assert (interrupted.deliveries, interrupted.commands) == (1, 1)
        [gap] = await site.until("GapSuspected")
        assert gap.last_alive <= interrupted.since <= gap.at
        after = inject(simulator, range(4, 5))
        await agent.connect(ack=2, hold_ms=0)
        assert await site.bodies() == before + after
        assert [one.count for one in await site.events("NotificationReceived")] == [0, 1, 4]
        assert site.tap.status()["recording"] is True
        assert Coverage.kinds >= {"GapSuspected"}


async def test_what_was_passed_on_unrecorded_and_comes_again_is_recorded_then(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        stormy(database, log, monkeypatch) as (site, weather, simulator),
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        bodies = inject(simulator, range(2))
        await agent.connect(ack=0, hold_ms=0)
        weather.fails = True
        bodies += inject(simulator, range(2, 4))
        await agent.connect(ack=0, hold_ms=0)
        weather.fails = False
        await site.until("GapSuspected")
        await agent.connect(ack=0, hold_ms=0)
        assert await site.bodies() == bodies


async def test_a_slow_log_holds_nobody_up_for_longer_than_the_patience(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        stormy(database, log, monkeypatch) as (site, weather, simulator),
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        gate = site.tap.recording.gate
        patience_s, gate._patience_s = gate._patience_s, 0.5
        weather.hangs = asyncio.Event()
        bodies = inject(simulator, range(2))
        await agent.connect(ack=0, hold_ms=0)
        for _ in range(3):
            await agent.operate("none", "Hold")  # does not wait any more
        assert len(gate._under_way) == 1
        gate._patience_s = patience_s
        weather.hangs.set()
        [interrupted] = await site.until("RecordingInterrupted")
        assert "0.5 s" in interrupted.cause
        await site.until("GapSuspected")
        assert await site.bodies() == bodies  # it came in late, and is told to be in doubt


async def test_by_the_other_policy_nothing_passes_unrecorded(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        stormy(database, log, monkeypatch, policy="refuse") as (site, weather, simulator),
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        weather.fails = True
        bodies = inject(simulator, range(2))
        assert (await agent.connect_raw(ack=0))[0] == 503
        assert (await agent.operate("none", "Hold"))[0] == 503
        assert not simulator.truth.commands
        assert (await agent.get("/api/v2/me"))[0] == 200  # nothing of it would be recorded
        weather.fails = False
        await site.until("RecordingInterrupted")
        await agent.connect(ack=0, hold_ms=0)
        assert await site.bodies() == bodies
        assert not await site.events("GapSuspected")  # it all came again


@pytest.mark.parametrize("policy", ["pass", "refuse"])
async def test_a_transfer_while_the_log_is_away(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    async with (
        stormy(database, log, monkeypatch, policy=policy) as (site, weather, simulator),
        application(simulator, site.tap.url) as agent,
    ):
        await agent.get("/api/v2/me")
        call = simulator.place_call("15001", "15000")
        simulator.answer(call.id, "15000")
        weather.fails = True
        status, _ = await agent.transfer(call.id, "15002")
        assert status == (200 if policy == "pass" else 503)
        assert len(simulator.truth.transfers_of(call.id)) == (policy == "pass")
        weather.fails = False
        [interrupted] = await site.until("RecordingInterrupted")
        assert interrupted.commands == (policy == "pass")


async def test_a_session_that_ends_meanwhile_is_told_of_afterwards(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        stormy(database, log, monkeypatch) as (site, weather, simulator),
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        await agent.connect(ack=0, hold_ms=0)
        weather.fails = True
        inject(simulator, range(1))
        await agent.connect(ack=1, hold_ms=0)
        await agent.bayeux({"channel": "/meta/disconnect"})
        await agent.open(CALLS)
        weather.fails = False
        [lost] = await site.until("SessionLost")
        opened = await site.until("SessionOpened", count=2)
        assert lost.session == opened[0].session
        assert lost.last_alive <= lost.at
