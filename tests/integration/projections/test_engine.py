from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from projecting import append, caught_up
from projection_reference import as_recorded, fold_all

from service.events import NotificationReceived, ProjectionRebuilt, encode
from service.gws import dialect
from service.log import EventLog, NewEvent, Producer
from service.postgres import Database
from service.projections import (
    CallState,
    Engine,
    Projection,
    Queries,
    Rebuilder,
    TransferFacts,
    catalogue,
)
from service.projections.histories import Histories, Session, notification
from service.projections.projection import Key, Recorded, Row
from service.projections.queries import legs_query
from service.projections.transfer_facts import Known

ENGINES_OWN = {"from_position", "to_position"}


@asynccontextmanager
async def engine(
    database: Database, log: EventLog, projections: list[Projection] | None = None
) -> AsyncIterator[Engine]:
    running = Engine(database, log, catalogue() if projections is None else projections)
    running.loop.start()
    try:
        yield running
    finally:
        await running.loop.stop()


def plain(rows: list[dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    return {
        (row["call_id"], row["device"]): {name: row[name] for name in row.keys() - ENGINES_OWN}
        for row in rows
    }


async def test_as_of_any_position_is_the_fold_up_to_it(database: Database, log: EventLog) -> None:
    await append(log, 600)
    queries = Queries(database)
    async with engine(database, log) as running:
        await caught_up(running, log)
    history = as_recorded(
        NewEvent(one.event_id, one.stream, one.kind, one.payload) for one in await log.read(limit=1_000)
    )
    times = {one.position: one.recorded_at for one in await log.read(limit=1_000)}
    for position in [*random.Random(1).sample(range(600), 60), 0, 599]:
        expected = {key: dict(row) for key, row in fold_all(CallState(), history[: position + 1]).items()}
        now = {key: row for key, row in expected.items() if row["state"] not in dialect.OVER}
        every = await queries.legs(as_of=position, include_over=True)
        for row in every:
            assert row["from_at"] == times[row["from_position"]]
        dated = {key: row | {"from_at": None} for key, row in expected.items()}
        assert {key: row | {"from_at": None} for key, row in plain(every).items()} == dated
        live = await queries.legs(as_of=position)
        assert plain(live).keys() == now.keys()
        call_id = history[position].stream.partition("-")[2]
        one_call = await queries.legs(as_of=position, call_id=call_id)
        assert plain(one_call).keys() == {key for key in expected if key[0] == call_id}
        some = await queries.legs(as_of=position, agent="15003")
        assert plain(some).keys() == {key for key, row in now.items() if row["agent"] == "15003"}
    assert plain(await queries.legs()).keys() == {
        key for key, row in fold_all(CallState(), history).items() if row["state"] not in dialect.OVER
    }


async def test_pages_of_any_size_give_the_same_rows(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(log, 500)
    monkeypatch.setattr("service.projections.engine.BATCH", 7)
    async with engine(database, log) as running:
        await caught_up(running, log)
    report = await Rebuilder(database, log, shares=1).rebuild([p.name for p in catalogue()], check=True)
    assert report.different == dict.fromkeys([p.name for p in catalogue()], 0)


async def test_two_engines_take_turns_and_the_second_takes_over(database: Database, log: EventLog) -> None:
    histories = await append(log, 300)
    source = histories.events()
    async with engine(database, log) as first, engine(database, log) as second:
        await caught_up(first, log)
        assert first.loop.ready.is_set() != second.loop.ready.is_set()
        leader, other = (first, second) if first.loop.ready.is_set() else (second, first)
        await leader.loop.stop()
        await log.append([next(source) for _ in range(200)])
        await caught_up(other, log)
        assert other.loop.ready.is_set()
    report = await Rebuilder(database, log).rebuild([p.name for p in catalogue()], check=True)
    assert sum((report.different or {}).values()) == 0


async def test_an_engine_that_has_lost_its_lock_writes_nothing_twice(
    database: Database, log: EventLog, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Its connection is cut at every stage; another one begins meanwhile."""
    source = (await append(log, 100)).events()
    async with engine(database, log) as first, engine(database, log):
        for _ in range(8):
            await log.append([next(source) for _ in range(150)])
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        await caught_up(first, log)
    report = await Rebuilder(database, log).rebuild([p.name for p in catalogue()], check=True)
    assert report.different == dict.fromkeys([p.name for p in catalogue()], 0)


class Choking(CallState):
    """Cannot digest calls that are held."""

    fixed = False

    def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
        if recorded.notice is not None and recorded.notice.state == "Held" and not self.fixed:
            raise ZeroDivisionError("held calls are too much for me")
        return super().fold(key, row, recorded)


async def test_an_event_that_a_fold_cannot_digest_is_set_aside_and_taken_again_after_a_fix(
    database: Database, log: EventLog
) -> None:
    await append(log, 300)
    held = [one.position for one in await log.read() if b'"state":"Held"' in one.payload]
    projections = [Choking() if p.name == "call_state" else p for p in catalogue()]
    async with engine(database, log, projections) as running:
        await caught_up(running, log)
        status = {row["name"]: row for row in await running.status()}
    assert held
    assert status["call_state"]["set_aside"] == len(held)
    assert [one["position"] for one in status["call_state"]["set_aside_events"]] == held[:100]
    assert "too much" in status["call_state"]["set_aside_events"][0]["reason"]
    assert status["transfer_audit"]["set_aside"] == 0
    assert status["call_state"]["lag_events"] == 0
    report = await Rebuilder(database, log).rebuild(["call_state"])
    assert report.set_aside == 0
    async with engine(database, log) as running:
        await caught_up(running, log)
        assert not any(row["set_aside"] for row in await running.status())


async def test_a_row_that_postgres_refuses_and_an_event_that_cannot_be_read_stop_nobody(
    database: Database, log: EventLog
) -> None:
    session = Session("15000")

    class Unwritable(CallState):
        def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
            after = super().fold(key, row, recorded)
            if after is not None and key[0] == "unwritable":
                return {**after, "conn_id": "\0"}
            if after is not None and key[0] == "incomplete":
                return {name: value for name, value in after.items() if name != "state"}
            return after

    bodies = [
        session.hears(notification("15000", call_id, "Ringing", [], {}), call_id)
        for call_id in ("a", "unwritable", "b", "incomplete", "c")
    ]
    torn = NewEvent(Producer.new().key, "call-x", NotificationReceived.kind(), b"not this kind at all")
    await log.append([*bodies[:3], torn, *bodies[3:]])
    projections = [Unwritable() if p.name == "call_state" else p for p in catalogue()]
    async with engine(database, log, projections) as running:
        await caught_up(running, log)
        status = (await running.status())[0]
    assert [one["position"] for one in status["set_aside_events"]] == [1, 3, 4]
    assert [row["call_id"] for row in await Queries(database).legs()] == ["a", "b", "c"]


async def test_lag_is_told_in_events_and_seconds(database: Database, log: EventLog) -> None:
    await append(log, 50)
    async with engine(database, log) as running:
        await caught_up(running, log)
        assert [(row["lag_events"], row["lag_seconds"]) for row in await running.status()] == [
            (0, 0.0)
        ] * len(catalogue())
    await append(log, 20, seed=2)
    behind = await Engine(database, log, catalogue()).status()
    assert [row["lag_events"] for row in behind] == [20] * len(catalogue())
    assert all(row["lag_seconds"] > 0 for row in behind)


async def test_events_of_kinds_that_nobody_folds_are_passed_over(database: Database, log: EventLog) -> None:
    event = ProjectionRebuilt(name="x", generation=1, upto=0)
    await log.append([NewEvent(Producer.new().key, "projection-x", event.kind(), encode(event))])
    await log.append([NewEvent(Producer.new().key, "other-x", "KindOfTomorrow", b"{}")])
    async with engine(database, log) as running:
        assert await caught_up(running, log) == 1


async def test_a_projection_that_is_new_catches_up_while_the_others_go_on(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.projections.engine.BATCH", 50)
    source = (await append(log, 400)).events()
    async with engine(database, log, [p for p in catalogue() if p.name != "call_state"]) as running:
        await caught_up(running, log)
    async with engine(database, log) as running:
        await log.append([next(source) for _ in range(77)])
        await caught_up(running, log)
    report = await Rebuilder(database, log).rebuild([p.name for p in catalogue()], check=True)
    assert report.different == dict.fromkeys([p.name for p in catalogue()], 0)


async def test_questions_as_of_a_moment_are_answered_by_indexes(database: Database, log: EventLog) -> None:
    await append(log, 6_000, live=50, agents=60)
    async with engine(database, log) as running:
        await caught_up(running, log)
    await database.pool.execute("ANALYZE")
    call_id = (await log.at([3_000]))[0].stream.partition("-")[2]
    questions = {
        "all": legs_query(3_000, None, None, include_over=False),
        "now": legs_query(None, None, None, include_over=False),
        "call": legs_query(3_000, call_id, None, include_over=False),
        "agent": legs_query(3_000, None, "15003", include_over=False),
    }
    for question, (statement, arguments) in questions.items():
        async with database.pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) {statement}", *arguments)
        plan = "\n".join(row[0] for row in rows)
        assert "Seq Scan on call_state" not in plan, f"{question}:\n{plan}"
        if question == "all":
            assert "node_to" in plan or "node_to_position" in plan, plan
            assert "node_from" in plan or "node_from_position" in plan, plan


async def test_a_reader_can_wait_for_a_position_or_learn_that_it_is_not_reached(
    database: Database, log: EventLog
) -> None:
    idle = Engine(database, log, catalogue())
    assert not await idle.reached(0, timeout_s=0.02)
    await append(log, 10)
    async with engine(database, log) as running:
        assert await running.reached(9, timeout_s=20)
        assert not await running.reached(10, timeout_s=0.02)


async def test_a_transfers_row_names_the_gaps_that_overlap_it(database: Database, log: EventLog) -> None:
    await append(log, 300)
    async with engine(database, log) as running:
        await caught_up(running, log)
    queries = Queries(database)
    rows = await queries.transfers()
    assert rows
    assert (await queries.transfer(rows[0]["transfer_id"]))["gaps"] == []


async def test_many_readers_wait_on_one_engine(database: Database, log: EventLog) -> None:
    source = (await append(log, 10)).events()
    async with engine(database, log) as running:
        waiting = [asyncio.create_task(running.reached(59, timeout_s=20)) for _ in range(20)]
        await log.append([next(source) for _ in range(50)])
        assert all(await asyncio.gather(*waiting))


@pytest.mark.parametrize(
    ("trouble", "cure"),
    [
        ("LOCK TABLE call_facts_g1 IN ACCESS EXCLUSIVE MODE", None),
        ("ALTER TABLE call_facts_g1 RENAME TO away", "ALTER TABLE away RENAME TO call_facts_g1"),
    ],
    ids=["stuck", "broken"],
)
async def test_a_projection_that_is_stuck_or_broken_holds_up_no_other(
    database: Database, log: EventLog, trouble: str, cure: str | None
) -> None:
    source = (await append(log, 200)).events()
    others = [p.name for p in catalogue() if p.name != "transfer_facts"]
    async with engine(database, log) as running, database.pool.acquire() as hand:
        await caught_up(running, log)
        holding = hand.transaction()
        if cure is None:
            await holding.start()
        await hand.execute(trouble)
        await log.append([next(source) for _ in range(300)])
        assert await running.reached(499, timeout_s=30, names=others)
        lags = {row["name"]: row["lag_events"] for row in await running.status()}
        assert lags == dict.fromkeys(others, 0) | {"transfer_facts": 300}
        if cure is None:
            await holding.rollback()
        else:
            await hand.execute(cure)
        await caught_up(running, log)
    report = await Rebuilder(database, log).rebuild([p.name for p in catalogue()], check=True)
    assert report.different == dict.fromkeys([p.name for p in catalogue()], 0)


class Fasting(TransferFacts):
    """Cannot digest the answering of a call, until it is repaired."""

    repaired = False

    def fold(self, key: Key, known: Known | None, recorded: Recorded) -> Known | None:
        notice = recorded.notice if isinstance(recorded.event, NotificationReceived) else None
        if not self.repaired and notice is not None and notice.state == "Established":
            raise ValueError("not now")
        return super().fold(key, known, recorded)


async def test_a_call_that_is_recalled_from_the_log_is_without_what_was_set_aside(
    database: Database, log: EventLog
) -> None:
    source = Histories(live=8, agents=10).events()
    await log.append(list(itertools.islice(source, 120)))
    async with engine(database, log, [Fasting()]) as running:
        await caught_up(running, log)
        aside = {one["position"] for one in (await running.status())[0]["set_aside_events"]}
    assert aside
    repaired = Fasting()
    repaired.repaired = True
    await log.append(list(itertools.islice(source, 120)))  # the same calls go on
    async with engine(database, log, [repaired]) as running:
        await caught_up(running, log)
    history = as_recorded(
        NewEvent(one.event_id, one.stream, one.kind, one.payload) for one in await log.read(limit=1_000)
    )
    known = fold_all(TransferFacts(), [one for one in history if one.position not in aside])
    columns = ("talk_seconds", "ended_at", "transfers", "position_first", "position_last")
    found = await database.pool.fetch("SELECT call_id, {} FROM call_facts".format(", ".join(columns)))
    rows = {key[0]: TransferFacts().row(key, one) for key, one in known.items()}
    assert {row["call_id"]: tuple(row)[1:] for row in found} == {
        call_id: tuple(row[name] for name in columns) for call_id, row in rows.items()
    }
