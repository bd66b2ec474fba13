from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from raw_tables import tables_with
from telling import CALL, CALLER, ORDER, OTHER_CALL, SECRETS, tell

from service.errors import CheckFailed, Conflict, NotFound, TransferUnderWay, UnderLegalHold
from service.events import CallsSnapshotTaken, NotificationReceived, TransferRequested, session_stream
from service.log import EventLog, Producer
from service.log.checkpoints import Checkpoints, load_keys
from service.log.verify import verify_log
from service.postgres import Database
from service.projections import Engine, Queries, Rebuilder, catalogue
from service.projections.histories import Histories, of
from service.redaction import (
    Fields,
    Order,
    Redactor,
    Scope,
    list_holds,
    list_redactions,
    place_hold,
    release_hold,
)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_the_old_values_are_nowhere_in_the_database(
    redactor: Redactor, database: Database, log: EventLog, engine: Engine, tmp_path: Path
) -> None:
    await log.append([event for _, event in zip(range(300), Histories(live=20).events(), strict=False)])
    transfer_id = await tell(log)
    await engine.reached(await log.next_position() - 1, timeout_s=60)
    assert set(await tables_with(database.url, CALLER)) >= {"public.event_log_000000"}
    before = await Checkpoints(database, load_keys(tmp_path)).sign()
    others = await others_rows(database)

    plan = await redactor.plan(ORDER)
    assert len(plan.payloads) == 10
    assert set(plan.fields) >= {
        "destination",
        "data.call.userData.Name",
        "calls.*.userData.Name",
        "(the body)",
    }
    assert (await tables_with(database.url, *SECRETS)) != {}
    outcome = await redactor.redact(ORDER)

    assert (await tables_with(database.url, *SECRETS)) == {}
    assert await others_rows(database) == others
    report = await verify_log(database, against=[before])
    assert (report.differences, report.redacted) == ([], sorted(plan.payloads))
    [fact] = await list_redactions(log, CALL)
    assert (fact["position"], fact["who"], fact["fields"]) == (
        outcome.positions[0],
        "dpo",
        ["userData.*", "participants", "destination.phoneNumber"],
    )
    row = await Queries(database).transfer(transfer_id)
    assert (row["outcome"], row["destination"]) == ("confirmed", "[redacted]")
    assert row["user_data"] == {"CustomerId": "[redacted]", "Name": "[redacted]"}
    unreadable = await log.read(kinds=["UnreadableReceived"])
    assert [one.payload.partition(b"\n")[2] for one in unreadable] == [
        b"[redacted]",
        b'{"id":"%bX",' % CALL.encode(),  # another call's
    ]
    [snapshot] = await log.read(kinds=["CallsSnapshotTaken"])
    assert json.loads(snapshot.payload.partition(b"\n")[2])["calls"][1] == OTHER_CALL


async def test_what_held_the_old_values_is_vacuumed_and_no_other_part_of_the_log(
    redactor: Redactor, database: Database, log: EventLog, engine: Engine, owner: Connection
) -> None:
    """SQL does not show old row versions: what can be seen is that each table was cleared of them."""
    await tell(log)
    await engine.reached(await log.next_position() - 1, timeout_s=20)
    await owner.execute("SELECT event_log_ensure_partition(event_log_partition_size())")
    await owner.execute("ANALYZE")  # samples, also of the partitioned tables as a whole
    held = set(await tables_with(database.url, *SECRETS))
    assert held >= {"public.event_log_000000", "pg_catalog.pg_statistic"}
    begun = await owner.fetchval("SELECT clock_timestamp()")
    await redactor.redact(ORDER)
    vacuumed = {row["name"] for row in await owner.fetch(VACUUMED_SINCE, begun)}
    assert held <= vacuumed
    assert "public.event_log_000001" not in vacuumed
    assert (await tables_with(database.url, *SECRETS)) == {}


VACUUMED_SINCE = """
SELECT format('%I.%I', schemaname, relname) AS name FROM pg_stat_all_tables WHERE last_vacuum >= $1
"""


async def others_rows(database: Database) -> list[str]:
    """Every row of every view that is not of our call."""
    rows = []
    for projection in catalogue():
        name = projection.table.name
        found = await database.pool.fetch(f"SELECT t::text AS row FROM {name} t")
        rows += [f"{name} {one['row']}" for one in found if CALL not in one["row"]]
    return sorted(rows)


async def test_the_views_are_as_if_built_from_the_redacted_log(
    redactor: Redactor, database: Database, log: EventLog, engine: Engine
) -> None:
    """Also where a later session's snapshot has ended a leg that it no longer names."""
    await tell(log)
    later = Producer.new()
    gone = CallsSnapshotTaken(later.key, "15001", datetime.now(UTC), 200)
    await log.append([of(later, 0, session_stream(later.key), gone, b'{"statusCode":0,"calls":[]}')])
    await log.append([event for _, event in zip(range(200), Histories(live=10).events(), strict=False)])
    await redactor.redact(ORDER)
    doubtful = "SELECT count(*) FROM call_state WHERE call_id = $1 AND doubt IS NOT NULL"
    assert await database.pool.fetchval(doubtful, CALL) == 1
    report = await Rebuilder(database, log).rebuild(list(engine.projections), check=True)
    assert report.different == dict.fromkeys(engine.projections, 0)


async def test_a_rebuild_that_began_before_the_redaction_holds_nothing_old(
    redactor: Redactor, database: Database, log: EventLog, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tell(log)
    rebuilder = Rebuilder(database, log)
    finish = rebuilder._finish

    async def redact_first(*arguments: object) -> None:
        monkeypatch.setattr(rebuilder, "_finish", finish)
        with pytest.raises(Conflict, match="another rebuild is running"):
            await redactor.redact(ORDER)
        await finish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rebuilder, "_finish", redact_first)
    await rebuilder.rebuild(list(engine.projections))
    await redactor.redact(ORDER)
    assert (await tables_with(database.url, *SECRETS)) == {}


async def test_generations_that_were_replaced_or_half_built_hold_nothing_old(
    redactor: Redactor, database: Database, log: EventLog, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tell(log)
    names = list(engine.projections)
    await Rebuilder(database, log).rebuild(names)
    cut_off = Rebuilder(database, log)
    monkeypatch.setattr(cut_off, "_finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await cut_off.rebuild(names)
    await redactor.redact(ORDER)
    assert (await tables_with(database.url, *SECRETS)) == {}
    report = await Rebuilder(database, log).rebuild(names, check=True)
    assert (report.resumed, report.swapped) == (False, True)


async def test_ordering_again_changes_nothing(redactor: Redactor, database: Database, log: EventLog) -> None:
    await tell(log)
    first = await redactor.redact(ORDER)
    again = await redactor.redact(ORDER)
    assert (len(first.positions), again.positions, again.plan.payloads) == (1, [], {})
    more = await redactor.redact(Order(CALL, Fields(["dnis"]), "dpo", "more"))
    assert set(more.plan.fields) == {"data.call.dnis", "calls.*.dnis"}
    report = await verify_log(database)
    assert (report.differences, report.redacted) == ([], sorted(first.plan.payloads))


def test_every_view_of_calls_can_be_folded_anew() -> None:
    of_calls = {NotificationReceived.kind(), TransferRequested.kind()}
    for projection in catalogue():
        if projection.kinds & of_calls:
            assert projection.by_call, projection.name
            assert "call_id" in projection.table.columns, projection.name


async def test_a_view_that_cannot_be_folded_anew_is_named(
    redactor: Redactor, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tell(log)
    monkeypatch.setattr("service.projections.refold.events_of", lambda *_: 1 / 0)
    with pytest.raises(CheckFailed, match="still holds old values"):
        await redactor.redact(ORDER)
    monkeypatch.undo()
    with pytest.raises(CheckFailed, match=r"calltrail rebuild \w+"):
        await redactor.redact(ORDER)


async def test_the_plan_says_where_else_the_values_stand(redactor: Redactor, log: EventLog) -> None:
    await tell(log)
    plan = await redactor.plan(Order(CALL, Fields(["participants.*.phoneNumber"]), "dpo", "why"))
    assert set(plan.remaining) == {
        f"{place}.participants.*.{name}"
        for place in ("calls.*", "data.call")
        for name in ("digits", "formattedPhoneNumber")
    }
    assert not (await redactor.plan(ORDER)).remaining


async def test_a_call_that_is_not_recorded_is_not_found(redactor: Redactor) -> None:
    with pytest.raises(NotFound):
        await redactor.plan(ORDER)


async def test_a_transfer_under_way_keeps_its_request(redactor: Redactor, log: EventLog) -> None:
    await tell(log, settled=False)
    with pytest.raises(TransferUnderWay, match="accepted"):
        await redactor.redact(ORDER)


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("scope", "covers"),
    [
        (Scope(), True),
        (Scope(call_id=CALL), True),
        (Scope(call_id="ANOTHER"), False),
        (Scope(agent="15001"), True),
        (Scope(agent="15002"), False),
        (Scope(since=datetime.now(UTC) - HOUR), True),
        (Scope(since=datetime.now(UTC) + HOUR), False),
        (Scope(until=datetime.now(UTC) - HOUR), False),
        (Scope(agent="15001", until=datetime.now(UTC) - HOUR), False),
    ],
)
async def test_a_hold_forbids_what_it_covers_until_it_is_released(
    redactor: Redactor, log: EventLog, scope: Scope, *, covers: bool
) -> None:
    await tell(log)
    hold = await place_hold(log, "C-17", scope, who="counsel", why="letter of the court")
    if covers:
        with pytest.raises(UnderLegalHold, match=r"case C-17, placed by counsel on 20\d\d"):
            await redactor.redact(ORDER)
        [refused] = await list_redactions(log)
        assert (refused["outcome"], refused["case"], refused["why"]) == ("refused", "C-17", ORDER.why)
        await release_hold(log, hold.hold_id, who="counsel", why="closed", approved_by="judge")
        again = await release_hold(log, hold.hold_id, who="other", why="again")
        assert again.who == "counsel"
    assert (await redactor.redact(ORDER)).positions


async def test_a_hold_that_comes_in_between_counts(
    redactor: Redactor, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tell(log)
    redact = log.redact

    async def too_late(*arguments: object, **more: object) -> int:
        monkeypatch.setattr(log, "redact", redact)
        await place_hold(log, "C-17", Scope(call_id=CALL), who="counsel", why="urgent")
        return await redact(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "redact", too_late)
    with pytest.raises(UnderLegalHold):
        await redactor.redact(ORDER)
    assert CALLER.encode() in (await log.at([0]))[0].payload
    assert len((await list_holds(log)).holds) == 1


async def test_readers_of_transfers_find_the_redacted_one(
    redactor: Redactor, database: Database, log: EventLog
) -> None:
    transfer_id = await tell(log)
    await redactor.redact(ORDER)
    rows = await Queries(database).transfers(call_id=CALL, limit=10)
    assert [row["transfer_id"] for row in rows] == [transfer_id]
