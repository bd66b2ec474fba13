from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from projecting import append, caught_up

from service.errors import BadInput, Conflict
from service.log import EventLog
from service.postgres import Database
from service.projections import CallState, Engine, Queries, Rebuilder, catalogue
from service.projections.projection import Key, Recorded, Row
from service.projections.reading import Reader, Share
from service.projections.rebuild import REBUILD_LOCK

ALL = [projection.name for projection in catalogue()]
SAME = dict.fromkeys(ALL, 0)


async def folded(database: Database, log: EventLog) -> None:
    running = Engine(database, log, catalogue())
    running.loop.start()
    await caught_up(running, log)
    await running.loop.stop()


async def dump(database: Database, table: str) -> list[tuple[Any, ...]]:
    rows = await database.pool.fetch(
        f"SELECT t FROM {table} t WHERE generation = (SELECT generation FROM projection"
        f" WHERE name = '{table}' AND live) ORDER BY 1"
    )
    return [tuple(row[0])[1:] for row in rows]


@pytest.mark.parametrize("shares", [1, 2, 3])
async def test_a_rebuild_equals_what_was_folded_live(database: Database, log: EventLog, shares: int) -> None:
    await append(log, 1_500, live=20, agents=30)
    await folded(database, log)
    before = {table: await dump(database, table) for table in ("call_state", "transfer_audit")}
    seen: list[tuple[int, int]] = []
    report = await Rebuilder(database, log, shares=shares).rebuild(
        ALL, check=True, progress=lambda done, total: seen.append((done, total))
    )
    assert report.different == SAME
    assert report.swapped
    assert report.shares == shares
    assert set(report.generations.values()) == {2}
    assert seen[-1] == (1_500, 1_500)
    assert {table: await dump(database, table) for table in before} == before
    assert len(before["call_state"]) > 1_000


async def test_shares_of_the_log_are_disjoint_and_have_all_of_it(database: Database, log: EventLog) -> None:
    await append(log, 600, live=20, agents=30)
    whole = [one.position for one in (await Reader(log, catalogue()).page(-1, 10_000)).events]
    for of in (2, 3):
        pages = [await Reader(log, catalogue(), Share(number, of)).page(-1, 599) for number in range(of)]
        found = [[one.position for one in page.events] for page in pages]
        assert sorted(itertools.chain(*found)) == whole
        assert all(len(share) > len(whole) // (of * 2) for share in found)
        for number, page in enumerate(pages):
            assert all(Share(number, of).has(one.stream.partition("-")[2]) for one in page.events)


async def test_a_rebuild_under_load_disturbs_neither_readers_nor_the_live_view(
    database: Database, log: EventLog
) -> None:
    source = (await append(log, 3_000, live=20, agents=30)).events()
    engine, queries = Engine(database, log, catalogue()), Queries(database)
    engine.loop.start()
    await caught_up(engine, log)
    moment = 1_500
    expected = await queries.legs(as_of=moment)
    assert expected
    done = asyncio.Event()
    reads = 0

    async def read() -> None:
        nonlocal reads
        while not done.is_set():
            assert await queries.legs(as_of=moment) == expected
            reads += 1

    async def write() -> None:
        while not done.is_set():
            positions = await log.append(list(itertools.islice(source, 50)))
            assert await engine.reached(positions[-1], timeout_s=60)

    readers = [asyncio.create_task(work()) for work in (read, read, write)]
    for _ in range(2):
        report = await Rebuilder(database, log, shares=2).rebuild(ALL, check=True)
        assert report.swapped
    done.set()
    await asyncio.gather(*readers)
    await engine.loop.stop()
    assert reads
    generations = await database.pool.fetch("SELECT generation FROM projection WHERE name = 'call_state'")
    assert sorted(row[0] for row in generations) == [2, 3]


async def test_a_table_changed_by_hand_is_found_row_by_row_and_field_by_field(
    database: Database, log: EventLog
) -> None:
    await append(log, 400)
    await folded(database, log)
    row = await database.pool.fetchrow(
        "SELECT * FROM call_state WHERE state = 'Held' ORDER BY 1,2,3,4 LIMIT 1"
    )
    gone = await database.pool.fetchrow(
        "SELECT * FROM call_state WHERE state = 'Ringing' ORDER BY 1,2 LIMIT 1"
    )
    where = "WHERE call_id = $1 AND device = $2 AND from_position = $3"
    await database.pool.execute(
        f"UPDATE call_state SET state = 'Bent' {where}", row["call_id"], row["device"], row["from_position"]
    )
    await database.pool.execute(
        f"DELETE FROM call_state {where}", gone["call_id"], gone["device"], gone["from_position"]
    )
    report = await Rebuilder(database, log).rebuild(ALL, check=True)
    assert report.different == SAME | {"call_state": 2}
    assert not report.swapped
    by_key = {one.key["from_position"]: one for one in report.differences}
    assert by_key[row["from_position"]].fields == {"state": ("Bent", "Held")}
    assert by_key[gone["from_position"]].only == "new"
    assert await database.pool.fetchval("SELECT count(*) FROM call_state WHERE state = 'Bent'") == 1
    assert await database.pool.fetchval("SELECT count(*) FROM projection") == len(ALL)
    await Rebuilder(database, log).rebuild(ALL)
    report = await Rebuilder(database, log).rebuild(ALL, check=True)
    assert report.different == SAME


async def test_a_transfers_facts_changed_by_hand_are_found(database: Database, log: EventLog) -> None:
    await append(log, 400)
    await folded(database, log)
    bent = await database.pool.fetchval(
        "UPDATE transfer_facts SET outcome = 'bent' WHERE transfer_id = "
        "(SELECT min(transfer_id::text)::uuid FROM transfer_facts) RETURNING transfer_id"
    )
    report = await Rebuilder(database, log).rebuild(["transfer_facts"], check=True)
    assert report.different == {"transfer_facts": 1}
    assert report.differences[0].key == {"transfer_id": bent}
    assert report.differences[0].fields["outcome"][0] == "bent"


class Politer(CallState):
    """A changed fold: held calls read as waiting."""

    def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
        after = super().fold(key, row, recorded)
        if after is not None and after["state"] == "Held":
            return {**after, "state": "Waiting"}
        return after


async def test_a_changed_fold_is_tried_on_the_whole_history_and_thrown_away(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(log, 400)
    await folded(database, log)
    before = await dump(database, "call_state")
    held = await database.pool.fetchval("SELECT count(*) FROM call_state WHERE state = 'Held'")
    report = await Rebuilder(database, log).rebuild([f"{Politer.__module__}:Politer"], check=True, swap=False)
    assert report.different == {"call_state": held}
    assert report.differences[0].fields == {"state": ("Held", "Waiting")}
    assert await dump(database, "call_state") == before
    assert await database.pool.fetchval("SELECT to_regclass('call_state_g2')") is None


async def test_a_rebuild_that_was_cut_off_goes_on_where_it_was(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.projections.building.PAGE", 100)
    monkeypatch.setattr("service.projections.building.FLUSH", 200)
    await append(log, 2_000, live=20, agents=30)
    await folded(database, log)

    class Cut(Exception):
        pass

    def cut(done: int, total: int) -> None:
        if done > 900:
            raise Cut

    with pytest.raises(Cut):
        await Rebuilder(database, log, shares=1).rebuild(ALL, progress=cut)
    seen: list[int] = []
    report = await Rebuilder(database, log, shares=1).rebuild(
        ALL, check=True, progress=lambda done, _: seen.append(done)
    )
    assert report.resumed
    assert seen[0] >= 900
    assert report.different == SAME
    assert report.swapped


async def test_a_rebuild_cut_off_between_two_swaps_swaps_the_rest(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(log, 300)
    await folded(database, log)
    swap = Rebuilder._swap

    async def cut(self: Rebuilder, connection: Any, projection: Any, generation: int) -> None:
        if projection.name == "coverage":
            raise Conflict("cut")
        await swap(self, connection, projection, generation)

    with monkeypatch.context() as patch:
        patch.setattr(Rebuilder, "_swap", cut)
        with pytest.raises(Conflict):
            await Rebuilder(database, log).rebuild(ALL)
    await append(log, 100, seed=2)
    await folded(database, log)
    assert (await Rebuilder(database, log).rebuild(ALL)).resumed
    live = await database.pool.fetch("SELECT DISTINCT generation FROM projection WHERE live")
    assert [row[0] for row in live] == [2]
    assert (await Rebuilder(database, log).rebuild(ALL, check=True)).different == SAME


async def test_rows_that_are_forgotten_and_found_again_are_the_same(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(log, 1_500, live=60, agents=70)
    await folded(database, log)
    monkeypatch.setattr("service.projections.memory.YOUNG_LIMIT", 10)
    monkeypatch.setattr("service.projections.building.PAGE", 40)
    report = await Rebuilder(database, log, shares=1).rebuild(ALL, check=True)
    assert report.different == SAME


async def test_a_view_that_is_behind_is_compared_at_the_same_position(
    database: Database, log: EventLog
) -> None:
    await append(log, 300)
    await folded(database, log)
    await append(log, 200, seed=2)
    assert (await Rebuilder(database, log).rebuild(ALL, check=True, swap=False)).different == SAME


async def test_only_one_rebuild_runs_at_a_time(database: Database, log: EventLog) -> None:
    await append(log, 10)
    other = await database.connect()
    await other.execute("SELECT pg_advisory_lock($1)", REBUILD_LOCK)
    with pytest.raises(Conflict, match="another rebuild"):
        await Rebuilder(database, log).rebuild(ALL)
    await other.close()
    await Rebuilder(database, log).rebuild(ALL)


@pytest.mark.parametrize(
    "name", ["nothing", "no.such.module:Thing", "service.projections:Nothing", "json:loads"]
)
async def test_a_projection_that_does_not_exist_is_named(
    database: Database, log: EventLog, name: str
) -> None:
    with pytest.raises(BadInput, match="projection"):
        await Rebuilder(database, log).rebuild([name])


async def test_an_empty_log_is_rebuilt(database: Database, log: EventLog) -> None:
    report = await Rebuilder(database, log).rebuild(ALL, check=True)
    assert (report.events, report.swapped) == (0, True)


async def test_old_generations_are_kept_until_told(database: Database, log: EventLog) -> None:
    await append(log, 50)
    await folded(database, log)
    await Rebuilder(database, log).rebuild(["call_state"])
    assert await database.pool.fetchval("SELECT count(*) FROM call_state_g1") > 0
    assert (await Rebuilder(database, log).drop_old(ALL))["call_state"] == [1]
    assert await database.pool.fetchval("SELECT to_regclass('call_state_g1')") is None
