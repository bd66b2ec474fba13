"""What was known then equals what was told then."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.engine import URL
from transfer_site import open_site

from service.analytics import TransferFilter
from service.audit.known import spans_known, transfer_known
from service.audit.transfers import list_transfers, transfer_trail
from service.errors import NotFound
from service.events import SessionLost, SessionOpened, encode, session_stream
from service.log import EventLog, NewEvent, Producer
from service.postgres import Database
from service.projections import Engine, Queries, catalogue
from service.projections.histories import Histories
from service.simulator import Scenario, Simulator

SESSION = UUID(int=1)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
Told = tuple[int, list[dict[str, Any]], list[dict[str, Any]]]


def of_session(number: int) -> NewEvent:
    """A session of one agent that is opened and lost by turns; losses replace spans or end them."""
    at = NOON + timedelta(minutes=number)
    event: SessionOpened | SessionLost = SessionOpened(SESSION, "15001", at, ack=True, channels=())
    if number % 2:
        event = SessionLost(SESSION, "15001", at, f"cause {number}", last_alive=NOON if number == 1 else at)
    return NewEvent(Producer.new().key, session_stream(SESSION), event.kind(), encode(event))


async def tell(log: EventLog, engine: Engine, queries: Queries) -> Told:
    """What the views tell now: the log's end, the transfers, the coverage."""
    position = await log.next_position() - 1
    assert await engine.reached(position, timeout_s=30)
    page = await list_transfers(log.database, queries, TransferFilter(), limit=1000)
    assert page.next is None
    gaps = {row["transfer_id"]: row["gaps"] for row in await queries.transfers(limit=1000)}
    transfers = [{**row, "gaps": gaps[row["transfer_id"]]} for row in page.transfers]
    return position, transfers, await queries.coverages()


async def check(log: EventLog, queries: Queries, told: list[Told]) -> None:
    for position, transfers, coverages in told:
        known = await spans_known(log, position)
        assert known == {one["agent"]: one["spans"] for one in coverages}
        for row in transfers:
            found = await transfer_known(log, queries, row["call_id"], row["transfer_id"], position)
            assert {**found, "has_gap": row["has_gap"], "gaps": row["gaps"]} == row


async def test_commanded_transfers_and_coverage_as_they_were_known(database: Database, log: EventLog) -> None:
    engine, queries = Engine(database, log, catalogue()), Queries(database)
    engine.loop.start()
    told = []
    events = Histories(live=8, agents=6).events()
    for number in range(6):
        await log.append(list(islice(events, 120)))
        await log.append([of_session(number)])
        told.append(await tell(log, engine, queries))
    await engine.loop.stop()
    outcomes = [{row["outcome"] for row in transfers} for _, transfers, _ in told]
    assert outcomes[0] & {"requested", "dispatched", "accepted"}
    assert len({str(spans) for _, _, spans in told}) == len(told)
    await check(log, queries, told)
    position, _, _ = told[0]
    later = next(row for row in told[-1][1] if row["first_position"] > position)
    with pytest.raises(NotFound, match="was not known yet"):
        await transfer_known(log, queries, later["call_id"], later["transfer_id"], position)


async def test_observed_transfers_and_gaps_as_they_were_known(database_url: URL) -> None:
    async with (
        Simulator(seed=3, agent_count=24) as simulator,
        open_site(database_url, simulator, users=simulator.agents, folding=True) as site,
    ):
        queries, engine = site.services.queries, site.services.engine
        told = [await tell(site.log, engine, queries)]
        for _ in range(2):
            async with asyncio.timeout(60):
                await Scenario(world=simulator, calls=12, calls_per_s=60, speed=400, transfer_share=0.7).run()
            told.append(await tell(site.log, engine, queries))
        first = told[1][1]
        assert any(row["door"] == "observed" for row in first)
        await check(site.log, queries, told)
        row = first[0]
        trail = await transfer_trail(site.database, queries, site.log, row["transfer_id"], told[1][0])
        assert {**trail.transfer, "gaps": trail.gaps} == row
        assert max(event.position for event in trail.events) <= told[1][0]
