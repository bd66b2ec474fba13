"""What is drafted on the supposition of where the log ends counts only if it does end there."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.cli.delay import delayed
from service.errors import AppendConflict, DatabaseError
from service.log import Condition, EventLog, NewEvent, Producer, Statement, open_log, sql
from service.log.clock import TRUSTED_S, DatabaseClock
from service.log.event import pack_events
from service.log.transaction import Transaction, draft_rows
from service.log.tree import read_tree
from service.log.verify import verify_log
from service.postgres import Database, open_pools

ENTER = """
INSERT INTO relay_cursor (name, position)
SELECT name, 7 FROM jsonb_to_recordset($1) AS entered (name text)
"""
FORGET_ALL = Statement("DELETE FROM relay_cursor WHERE $1 IS NOT NULL", {})


def event(producer: Producer, count: int, stream: str = "call-1") -> NewEvent:
    return NewEvent(producer.event_id(count), stream, "K", b"%d" % count)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Transaction]:
    """The transactions that had to look first."""
    seen: list[Transaction] = []
    look_and_write = Transaction.look_and_write

    async def watched(self: Transaction, *arguments: Any) -> None:
        seen.append(self)
        await look_and_write(self, *arguments)

    monkeypatch.setattr(Transaction, "look_and_write", watched)
    return seen


async def test_who_knows_where_the_log_ends_does_not_look(
    log: EventLog, database: Database, looks: list[Transaction]
) -> None:
    producer = Producer.new()
    await log.append([event(producer, 0)])
    await log.append([event(producer, 1)])
    looks.clear()
    enter = Statement(ENTER, {"name": "a"})
    for count in range(2, 400):  # a tile becomes full on the way
        condition = Condition("call-1", count - 1)
        await log.append([event(producer, count)], conditions=[condition], also=[enter] if count == 9 else ())
    assert looks == []
    assert await database.pool.fetchval("SELECT count(*) FROM relay_cursor") == 1
    assert (await verify_log(database)).differences == []


async def test_statements_go_with_the_events_in_their_one_round_trip(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    connect = Database.connect

    async def watched(self: Database) -> Any:
        connection = await connect(self)
        connection.add_query_logger(lambda record: sent.append(record.query))
        return connection

    monkeypatch.setattr(Database, "connect", watched)
    async with open_log(database, max_payload_bytes=100) as log:
        for _ in range(3):
            await log.append([event(Producer.new(), 0)])
            await asyncio.sleep(0)  # the driver tells its loggers in the loop's next round
        sent.clear()
        names = [str(number) for number in range(20)]
        await asyncio.gather(
            *(
                log.append([event(Producer.new(), 0)], also=[Statement(ENTER, {"name": name}), FORGET_ALL])
                for name in names
            )
        )
        await asyncio.sleep(0)
        assert sent == [sql.APPEND]
        assert await database.pool.fetchval("SELECT count(*) FROM relay_cursor") == 0
        await log.append([event(Producer.new(), 0)], also=[FORGET_ALL, Statement(ENTER, {"name": "a"})])
        assert await database.pool.fetchval("SELECT count(*) FROM relay_cursor") == 1


async def test_what_a_statement_finds_there_already_is_not_taken_for_an_event(
    log: EventLog, database: Database
) -> None:
    enter = Statement(ENTER, {"name": "a"})
    for before in range(2):  # a first append looks, a later one has drafted
        assert await log.append([event(Producer.new(), 0)], also=[enter]) == [before]
        with pytest.raises(DatabaseError, match="relay_cursor"):
            await log.append([event(Producer.new(), 0)], also=[enter])
        await database.pool.execute("DELETE FROM relay_cursor")
    assert await log.next_position() == 2


async def test_who_goes_away_while_he_writes_leaves_a_log_that_goes_on(
    log: EventLog, database: Database
) -> None:
    await log.append([event(Producer.new(), 0)])
    for count in range(20):
        mine = [event(Producer.new(), 0)]
        async with asyncio.timeout(30):
            async with database.pool.acquire() as rival, rival.transaction():
                await rival.execute("SELECT FROM log_head FOR UPDATE")
                leaving = asyncio.create_task(log.append(mine))
                for _ in range(count):  # before he has begun, has sent it, waits
                    await asyncio.sleep(0)
                leaving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await leaving
            await asyncio.gather(*(log.append([event(Producer.new(), 0)]) for _ in range(3)))
            await log.append(mine)
        assert await log.next_position() == 1 + 4 * (count + 1)
    assert (await verify_log(database)).differences == []


async def test_nobody_complains_of_the_fate_of_who_has_gone(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_log(database, max_payload_bytes=100) as log:
        await log.append([event(Producer.new(), 0)])
        refused = log.append([event(Producer.new(), 0)], conditions=[Condition("call-1", -1)])
        leaving = asyncio.create_task(refused)
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await log.append([event(Producer.new(), 0)]) == [1]
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


async def test_who_writes_himself_is_waited_for(database: Database) -> None:
    async with database.pool.acquire() as rival, open_log(database, max_payload_bytes=100) as log:
        await log.append([event(Producer.new(), 0)])
        async with rival.transaction():
            await rival.execute("SELECT FROM log_head FOR UPDATE")
            writing = asyncio.create_task(log.append([event(Producer.new(), 0)]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # his own
            stopping = asyncio.create_task(log.stop())
            done, _ = await asyncio.wait([stopping], timeout=0.05)
            assert not done
        await stopping
        assert writing.done()
        assert await writing == [1]


async def test_another_process_s_events_are_noticed_and_taken_up(
    log: EventLog, database: Database, looks: list[Transaction]
) -> None:
    async with open_log(database, max_payload_bytes=100) as other:
        for count in range(30):
            enter = Statement(ENTER, {"name": str(count)})
            door = (log, other)[count // 3 % 2]
            assert await door.append([event(Producer.new(), 0)], also=[enter] * (count % 2)) == [count]
        assert looks
    assert await database.pool.fetchval("SELECT count(*) FROM relay_cursor") == 15
    report = await verify_log(database)
    assert (report.size, report.differences) == (30, [])


async def test_racing_appenders_with_conditions_and_repetitions_leave_a_log_that_verifies(
    log: EventLog, database: Database
) -> None:
    async def produce(door: EventLog, number: int) -> int:
        producer, written = Producer.new(), 0
        for count in range(12):
            one = event(producer, count, stream=f"call-{number % 3}")
            last = await door.last_of(one.stream)
            condition = [Condition(one.stream, last[0].position if last else -1)] if count % 3 == 0 else []
            try:
                positions = await door.append([one], conditions=condition)
            except AppendConflict:
                continue
            assert await door.append([one], conditions=condition) == positions
            written += 1
        return written

    async with open_log(database, max_payload_bytes=100) as other:
        written = await asyncio.gather(*(produce((log, other)[number % 2], number) for number in range(24)))
    report = await verify_log(database)
    assert (report.size, report.differences) == (sum(written), [])
    assert [one.position for one in await log.read()] == list(range(report.size))


@pytest.mark.parametrize(
    "wrong",
    [
        {0: 3},
        {0: 1},
        {1: bytes(32)},
        {3: datetime.now(UTC) + timedelta(hours=1)},
        {3: datetime(2001, 1, 1, tzinfo=UTC)},
        {15: ["call-1"], 16: [0]},
    ],
    ids=["beyond the end", "before the end", "another tree", "the future", "before the last", "condition"],
)
async def test_a_draft_that_does_not_fit_writes_nothing(
    log: EventLog, database: Database, wrong: dict[int, Any]
) -> None:
    producer = Producer.new()
    await log.append([event(producer, 0), event(producer, 1)])
    stored = await log.read()
    async with database.pool.acquire() as connection:
        tree = await read_tree(connection, 2)  # type: ignore[arg-type]  # the pool's proxy will do
    rows = pack_events([event(producer, 2)], lambda payload: (0, payload))
    draft = draft_rows(rows, tree, stored[-1].recorded_at, (), ())
    arguments = [wrong.get(index, argument) for index, argument in enumerate(draft.arguments)]
    assert not (await database.pool.fetchrow(sql.APPEND, *arguments))["written"]  # type: ignore[index]
    assert await log.next_position() == 2
    assert (await database.pool.fetchrow(sql.APPEND, *draft.arguments))["written"]  # type: ignore[index]
    assert (await verify_log(database)).differences == []


def test_the_clock_is_that_of_the_quickest_answer_and_not_trusted_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = 1_000.0
    monkeypatch.setattr("service.log.clock.monotonic", lambda: ours)
    clock, noon = DatabaseClock(), datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert clock.now() is None
    clock.hear(noon - timedelta(milliseconds=2))  # that answer took its time
    clock.hear(noon)
    clock.hear(noon - timedelta(milliseconds=5))
    ours += 1
    assert clock.now() == noon + timedelta(seconds=1)
    ours += TRUSTED_S
    assert clock.now() is None
    clock.forget()
    clock.hear(noon)
    assert clock.now() == noon


async def test_producers_far_away_share_round_trips(database: Database) -> None:
    async with delayed(database.url, 0.02) as url, open_pools(url) as far:
        begin = asyncio.get_running_loop().time()
        await far.pool.fetchval("SELECT 1")
        assert asyncio.get_running_loop().time() - begin >= 0.02
        async with open_log(far, max_payload_bytes=100) as log:
            await asyncio.gather(*(log.append([event(Producer.new(), 0)]) for _ in range(300)))
    transactions = await database.pool.fetchval("SELECT count(DISTINCT recorded_at) FROM event_log")
    assert await database.pool.fetchval("SELECT count(*) FROM event_log") == 300
    assert transactions <= 4
