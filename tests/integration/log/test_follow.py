from __future__ import annotations

import asyncio

from service.log import EventLog, NewEvent, Producer, open_log
from service.log.watch import HeadWatch
from service.postgres import Database


def event(number: int) -> NewEvent:
    return NewEvent(Producer.new().key, "call-1", "K", b"%d" % number)


async def collect(log: EventLog, count: int) -> list[int]:
    found: list[int] = []
    async for page in log.follow(after=-1, limit=7):
        found += [int(one.payload) for one in page]
        if len(found) >= count:
            return found
    return found


async def test_a_follower_sees_everything_once_and_in_order(log: EventLog, database: Database) -> None:
    async with open_log(database, max_payload_bytes=100) as elsewhere:
        following = asyncio.create_task(collect(elsewhere, 100))
        for number in range(100):
            await log.append([event(number)])
        async with asyncio.timeout(20):
            assert await following == list(range(100))


async def test_a_notification_that_never_comes_is_made_up_for_by_the_poll(
    log: EventLog, database: Database
) -> None:
    watch = HeadWatch(database)
    watch.start()
    await watch._loop.ready.wait()
    # A head moved by a transaction that tells nobody:
    await database.pool.execute("UPDATE log_head SET next_position = 5")
    assert await watch.beyond(3, timeout_s=10)
    await watch.stop()


async def test_reading_by_stream_kind_position_and_time(log: EventLog) -> None:
    for number in range(6):
        stream, kind = f"call-{number % 2}", "Even" if number % 2 == 0 else "Odd"
        await log.append([NewEvent(Producer.new().key, stream, kind, b"%d" % number)])
    assert [one.position for one in await log.read(stream="call-1", after=1)] == [3, 5]
    assert [one.position for one in await log.read(kinds=["Even"], upto=3)] == [0, 2]
    assert [one.position for one in await log.last_of("call-0", limit=2)] == [4, 2]
    assert [one.position for one in await log.at([4, 1, 99])] == [1, 4]
    events = await log.read()
    for one in events:
        last_then = max(other.position for other in events if other.recorded_at <= one.recorded_at)
        assert await log.position_at(one.recorded_at) == last_then
    assert await log.position_at(events[0].recorded_at.replace(year=2000)) == -1
