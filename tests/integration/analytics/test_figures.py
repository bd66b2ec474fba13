"""Every figure equals a computation over the simulator's own truth, and leads to the transfers behind it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC
from statistics import median
from typing import Any

import pytest
from simulated_truth import Hop, handled_calls, hops_of, lengths, quantile
from sqlalchemy.engine import URL
from transfer_site import Site, open_site

from service import analytics
from service.analytics import TransferFilter, behind
from service.audit.transfers import list_transfers, transfer_trail
from service.projections import Rebuilder
from service.simulator import Scenario, Simulator, scenario

EVERYTHING = TransferFilter()


@dataclass(frozen=True)
class Centre:
    """A contact centre after its working day."""

    site: Site
    simulator: Simulator
    hops: list[Hop]

    @property
    def database(self) -> Any:
        return self.site.database

    async def total(self, wanted: TransferFilter) -> int:
        return (await list_transfers(self.database, self.site.services.queries, wanted, limit=1)).total


@pytest.fixture
async def centre(database_url: URL, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Centre]:
    """Seeded traffic in which every transfer goes where its arrival is recorded."""
    monkeypatch.setitem(scenario.OUTCOMES, "outside", (0, {}))
    async with (
        Simulator(seed=7, agent_count=48) as simulator,
        open_site(database_url, simulator, users=simulator.agents, folding=True) as site,
    ):
        async with asyncio.timeout(60):
            traffic = Scenario(world=simulator, calls=40, calls_per_s=60, speed=400, transfer_share=0.65)
            await traffic.run()
        await simulator.until(
            lambda: all(
                message.acknowledged_at is not None
                for session in simulator.truth.sessions.values()
                for message in session.messages
            ),
            within_s=30,
        )
        end = await site.log.next_position() - 1
        assert await site.services.engine.reached(end, timeout_s=60)
        yield Centre(site, simulator, hops_of(simulator))


async def test_every_figure_equals_the_simulators_truth_and_leads_to_its_transfers(centre: Centre) -> None:
    await figures_are_true(centre)
    await figures_lead_to_their_transfers(centre)
    await values_beyond_the_top_are_counted_together(centre)


async def figures_are_true(centre: Centre) -> None:
    database, hops = centre.database, centre.hops
    assert len(hops) > 15

    by_reason = await analytics.count_transfers(database, EVERYTHING, by="reason")
    assert {one.value: one.transfers for one in by_reason} == Counter(hop.reason or "unknown" for hop in hops)
    by_agent = await analytics.count_transfers(database, EVERYTHING, by="agent")
    assert {one.value: one.transfers for one in by_agent} == Counter(hop.agent for hop in hops)
    by_destination = await analytics.count_transfers(database, EVERYTHING, by="destination")
    assert {one.value: one.transfers for one in by_destination} == Counter(hop.destination for hop in hops)

    by_segment = await analytics.count_transfers(database, EVERYTHING, by="data.Segment")
    segments = {call.id: dict(call.user_data)["Segment"] for call in centre.simulator.calls.values()}
    assert {one.value: one.transfers for one in by_segment} == Counter(segments[hop.call_id] for hop in hops)

    [rate] = await analytics.transfer_rate(database, EVERYTHING)
    calls, transferred = handled_calls(centre.simulator), lengths(hops)
    assert (rate.calls, rate.transferred_calls, rate.transfers) == (len(calls), len(transferred), len(hops))
    assert rate.transferred_call_rate == len(transferred) / len(calls)
    assert rate.transfers_per_call == len(hops) / len(calls)

    [narrow] = await analytics.transfer_rate(database, TransferFilter(reason="Billing"))
    billed = [hop for hop in hops if hop.reason == "Billing"]
    assert (narrow.calls, narrow.transfers) == (len(calls), len(billed))
    assert narrow.transferred_calls == len(lengths(billed))

    [talk] = await analytics.talk_before_transfer(database, EVERYTHING)
    talks = [hop.talk_s for hop in hops if hop.talk_s is not None]
    assert talk.transfers == len(talks)
    assert talk.median_s == pytest.approx(median(talks), abs=1e-6)
    assert talk.p90_s == pytest.approx(quantile(talks, 0.9), abs=1e-6)
    for one in talk.bins:
        expected = sum(one.from_s <= value < (one.to_s or float("inf")) for value in talks)
        assert one.transfers == expected, one

    found = {one.length: one for one in await analytics.chains(database, EVERYTHING)}
    assert {length: one.calls for length, one in found.items()} == Counter(transferred.values())
    back = [hop for hop in hops if hop.ping_pong]
    assert sum(one.ping_pong_transfers for one in found.values()) == len(back) > 0
    assert sum(one.ping_pong_calls for one in found.values()) == len({hop.call_id for hop in back})

    pairs = await analytics.pairs(database, EVERYTHING, limit=1_000)
    assert {(one.agent, one.destination): one.transfers for one in pairs} == Counter(
        (hop.agent, hop.destination) for hop in hops
    )
    over_time = await analytics.transfers_over_time(database, EVERYTHING, bucket="hour", top=100)
    told = Counter[str]()
    for point in over_time:
        assert point.value is not None
        told[point.value] += point.transfers
    assert told == Counter(hop.reason or "unknown" for hop in hops)
    assert sum(one.transfers for one in await analytics.hour_of_week(database, EVERYTHING)) == len(hops)


async def figures_lead_to_their_transfers(centre: Centre) -> None:
    database = centre.database
    asked: list[tuple[Any, dict[str, Any]]] = []
    for by in ("reason", "agent", "destination", "outcome", "data.Segment"):
        asked += [(one, {"by": by}) for one in await analytics.count_transfers(database, EVERYTHING, by=by)]
    for bucket in ("hour", "day", "week", "month"):
        points = await analytics.transfers_over_time(database, EVERYTHING, bucket=bucket, top=1_000)
        asked += [(one, {"by": "reason", "bucket": bucket}) for one in points]
    asked += [(one, {}) for one in await analytics.pairs(database, EVERYTHING)]
    asked += [(one, {}) for one in await analytics.hour_of_week(database, EVERYTHING)]
    asked += [(one, {}) for one in await analytics.chains(database, EVERYTHING)]
    talks = await analytics.talk_before_transfer(database, EVERYTHING, by="reason")
    asked += [(one, {"by": "reason"}) for one in talks]
    asked += [(one, {}) for one in (await analytics.talk_before_transfer(database, EVERYTHING))[0].bins]
    for figure, how in asked:
        wanted = behind(figure, EVERYTHING, zone=UTC, **how)
        assert wanted is not None
        assert await centre.total(wanted) == figure.transfers, figure


async def values_beyond_the_top_are_counted_together(centre: Centre) -> None:
    every = await analytics.count_transfers(centre.database, EVERYTHING, by="reason")
    few = await analytics.count_transfers(centre.database, EVERYTHING, by="reason", top=2)
    assert [one.value for one in few] == [every[0].value, every[1].value, None]
    assert few[2].transfers == sum(one.transfers for one in every[2:])
    points = await analytics.transfers_over_time(centre.database, EVERYTHING, top=2)
    assert sum(one.transfers for one in points if one.value is None) == few[2].transfers


async def test_what_is_commanded_has_its_trail_and_a_rebuild_leaves_the_views_as_they_are(
    centre: Centre,
) -> None:
    await what_is_commanded_has_its_reason_outcome_and_trail(centre)
    await a_rebuild_leaves_the_views_as_they_are(centre)


async def a_rebuild_leaves_the_views_as_they_are(centre: Centre) -> None:
    views = [
        row["viewname"]
        for row in await centre.database.pool.fetch(
            "SELECT viewname FROM pg_views WHERE schemaname = 'analytics' AND viewname <> 'freshness'"
        )
    ]

    async def contents() -> dict[str, list[str]]:
        return {
            view: sorted(
                row[0] for row in await centre.database.pool.fetch(f"SELECT t::text FROM analytics.{view} t")
            )
            for view in views
        }

    before = await contents()
    assert before["fact_transfer"]
    log = centre.site.log
    report = await Rebuilder(centre.database, log, shares=2).rebuild(["transfer_facts"], check=True)
    assert report.different == {"transfer_facts": 0}
    assert report.swapped
    assert await contents() == before
    await Rebuilder(centre.database, log).drop_old(["transfer_facts"])
    tables = await centre.database.pool.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^(call|transfer)_facts_g'"
    )
    assert {row["relname"] for row in tables} == {"call_facts_g2", "transfer_facts_g2"}


async def what_is_commanded_has_its_reason_outcome_and_trail(centre: Centre) -> None:
    site = centre.site
    call = await site.seen_call("15000", "15001")
    answered = await site.command(call.id, to="15002", userData={"TransferReason": " Fraud "})
    transfer = await site.ended(call.id)
    refused = await site.seen_call("15003", "15004")
    await site.command(refused.id, to="15003", agent="15003")
    await site.ended(refused.id)
    assert await site.services.engine.reached(await site.log.next_position() - 1, timeout_s=60)
    commanded = TransferFilter(commanded=True)
    outcomes = await analytics.count_transfers(site.database, commanded, by="outcome")
    assert {one.value: one.carried_out for one in outcomes} == {"confirmed": 1, "rejected": 0}
    fraud = TransferFilter(commanded=True, reason="Fraud", agent="15000", destination="15002")
    assert await centre.total(fraud) == 1
    trail = await transfer_trail(site.database, site.services.queries, site.log, transfer.id)
    assert trail.transfer["reason_raw"] == " Fraud "
    assert trail.transfer["resource_role"] == "Received"
    assert trail.transfer["technical_result"] == "Transferred"
    assert trail.gaps == []
    assert [event.kind for event in trail.events if event.role == "step"] == await site.kinds(call.id)
    assert {event.position for event in trail.events if event.role == "evidence"} <= set(
        trail.transfer["evidence"]
    )
    assert answered.json["transfer_id"] == str(trail.transfer["transfer_id"])
