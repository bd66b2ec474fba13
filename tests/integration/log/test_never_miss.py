"""Where other stores lose events silently between log and reader; and a naive table, which does lose them."""

from __future__ import annotations

import asyncio

from service.log import EventLog, NewEvent, Producer, open_log
from service.postgres import Database


def event(number: int) -> NewEvent:
    return NewEvent(Producer.new().key, "call-1", "K", b"%d" % number)


async def follow(log: EventLog, count: int) -> list[int]:
    seen: list[int] = []
    async for page in log.follow(after=-1):
        seen += [one.position for one in page]
        if len(seen) >= count:
            break
    return seen


async def test_a_slow_transaction_beside_fast_ones_is_never_passed_by(
    log: EventLog, database: Database
) -> None:
    """The slow one holds the head: those behind it wait, and no reader can see beyond it."""
    async with open_log(database, max_payload_bytes=100) as reader, database.pool.acquire() as slow:
        following = asyncio.create_task(follow(reader, 20))
        await slow.execute("BEGIN; SELECT FROM log_head FOR UPDATE")
        waiting = [asyncio.create_task(log.append([event(number)])) for number in range(20)]
        assert not await reader.watch.beyond(-1, timeout_s=0.3)
        await slow.execute("ROLLBACK")
        await asyncio.gather(*waiting)
        async with asyncio.timeout(30):
            assert await following == list(range(20))


async def test_bulk_beside_live_appends_and_a_rollback_leave_no_hole(
    log: EventLog, database: Database
) -> None:
    async with open_log(database, max_payload_bytes=100) as other:
        following = asyncio.create_task(follow(other, 3_050))
        await asyncio.gather(
            log.append([event(number) for number in range(3_000)]),
            *(other.append([event(number)]) for number in range(50)),
        )
        async with asyncio.timeout(30):
            assert await following == list(range(3_050))


async def test_the_same_on_a_sequence_loses_an_event(database: Database) -> None:
    """For contrast: a reader that remembers the highest number it saw never sees the slow one's event."""
    await database.pool.execute("CREATE TABLE naive (position bigserial PRIMARY KEY)")
    async with database.pool.acquire() as slow, database.pool.acquire() as fast:
        await slow.execute("BEGIN; INSERT INTO naive DEFAULT VALUES")
        await fast.execute("INSERT INTO naive DEFAULT VALUES")
        seen = [row["position"] for row in await fast.fetch("TABLE naive")]
        await slow.execute("COMMIT")
        later = await fast.fetch("SELECT position FROM naive WHERE position > $1", max(seen))
        there = await fast.fetchval("SELECT count(*) FROM naive")
    assert (len(seen) + len(later), there) == (1, 2)
