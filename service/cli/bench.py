"""Measuring the log against what Postgres can do without it, in the same run and on the same server.

The measure for appending is raw COPY: the same events, not compressed, encoded beforehand, into a table of
the same columns and indexes, in transactions as large as the log's were, with nothing else to do. Rounds of
both alternate and the medians are compared, so that a busy machine weighs on both.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median
from time import perf_counter
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import URL

from service.cli.delay import delayed
from service.cli.raw_copy import HEADER, TRAILER, encode_rest, encode_rows
from service.cli.traffic import Traffic
from service.log import EventLog, NewEvent, Producer, open_log
from service.log.ids import COUNT_BITS
from service.log.sql import COLUMNS
from service.log.verify import verify_log
from service.postgres import Database, connect_arguments, open_pools
from service.postgres.schema import upgrade

T = TypeVar("T")

PRODUCERS = 500
BULK = 2_000  # events in one request
IN_FLIGHT = 3  # requests of a bulk append that are under way at once
ROUNDS = 5
WARM_UP = 20_000
FILL = 50_000
FEWEST = 2_000  # events in a round
ALONE = 2_000  # events of one producer
FOLLOWED = 500
STAGES = (100_000, 1_000_000)
BYTES_PER_EVENT = 700  # table, indexes and tiles take 560 of these, the rows of COPY beside them the rest
WAL_BYTES = 2 << 30  # Postgres' max_wal_size is 1 GiB, which it may exceed
FAR_S = 0.01
FAR_ALONE = 50
MIB = 1 << 20

RAW_TABLE = """
CREATE TABLE raw_copy (LIKE event_log INCLUDING ALL);
CREATE UNIQUE INDEX ON raw_copy (event_id);
CREATE INDEX ON raw_copy (stream, position);
"""

SIZES = """
SELECT
    (SELECT sum(pg_table_size(relid)) FROM pg_partition_tree('event_log'))::bigint AS table,
    (SELECT sum(pg_indexes_size(relid)) FROM pg_partition_tree('event_log'))::bigint AS indexes,
    pg_total_relation_size('log_tile') AS tiles
"""


@asynccontextmanager
async def fresh_database(server: URL) -> AsyncIterator[Database]:
    """A migrated database of its own on `server`, dropped at the end."""
    name = f"calltrail_bench_{uuid4().hex[:8]}"
    admin = await asyncpg.connect(**connect_arguments(server))
    try:
        await admin.execute(f'CREATE DATABASE "{name}"')
        url = server.set(database=name)
        await upgrade(url)
        async with open_pools(url) as database:
            yield database
    finally:
        await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await admin.close()


@dataclass
class Bench:
    """One run of all measurements; `say` is told what is being done."""

    database: Database
    log: EventLog
    say: Callable[[str], None]
    traffic: Traffic = field(default_factory=lambda: Traffic(seed=7))
    raw_position: int = 0
    payload_bytes: int = 0

    async def warm_up(self) -> None:
        await self.database.pool.execute(RAW_TABLE)
        await self.bulk(self.take(WARM_UP))
        await self.raw(self.take(WARM_UP), BULK)

    def take(self, count: int) -> list[NewEvent]:
        return list(self.traffic.events(count))

    async def measure_appending(self, count: int) -> dict[str, Any]:
        """Events a second, by producers and in bulk, and beside each that of raw COPY."""
        found: dict[str, Any] = {}
        for name, append in (("concurrent", self.concurrent), ("bulk", self.bulk)):
            ours, raw, batches = [], [], []
            for _ in range(ROUNDS):
                events = self.take(count)
                rate, batch = await self.timed(append, events)
                ours.append(rate)
                batches.append(batch)
                raw.append(await self.raw(self.take(count), batch))
            found[f"append_vs_copy_{name}"] = median(ours) / median(raw)
            found[f"append_{name}_events_per_s"] = median(ours)
            found[f"copy_{name}_events_per_s"] = median(raw)
            found[f"batch_{name}"] = median(batches)
        return found

    async def timed(
        self, append: Callable[[Sequence[NewEvent]], Awaitable[None]], events: Sequence[NewEvent]
    ) -> tuple[float, int]:
        """Events a second, and how many went into a transaction."""
        after = await self.log.next_position()
        gc.collect()
        gc.freeze()  # the events made beforehand are ours, the collector need not look at them
        begin = perf_counter()
        await append(events)
        seconds = perf_counter() - begin
        transactions = await self.database.pool.fetchval(
            "SELECT count(DISTINCT recorded_at) FROM event_log WHERE position >= $1", after
        )
        return len(events) / seconds, max(1, round(len(events) / transactions))

    async def concurrent(self, events: Sequence[NewEvent]) -> None:
        """Producers that append one event after the other, each when the one before is durable."""

        async def produce(mine: Sequence[NewEvent]) -> None:
            for event in mine:
                await self.log.append([event])

        self.count(events)
        await asyncio.gather(*(produce(events[first::PRODUCERS]) for first in range(PRODUCERS)))

    async def bulk(self, events: Sequence[NewEvent]) -> None:
        """Large requests, a few of them under way."""
        requests = iter(pieces(events, BULK))

        async def produce() -> None:
            for request in requests:
                await self.log.append(request)

        self.count(events)
        await asyncio.gather(*(produce() for _ in range(IN_FLIGHT)))

    def count(self, events: Sequence[NewEvent]) -> None:
        self.payload_bytes += sum(len(event.payload) for event in events)

    async def raw(self, events: Sequence[NewEvent], batch: int) -> float:
        """Events a second by COPY alone."""
        moment = datetime.now(UTC)
        rests = [
            encode_rest(
                event.event_id, 0, event.stream, event.kind, os.urandom(16), os.urandom(32), event.payload
            )
            for event in events
        ]
        encoded = []
        for some in pieces(rests, batch):
            encoded.append(HEADER + encode_rows(self.raw_position, moment, some) + TRAILER)
            self.raw_position += len(some)
        async with self.database.pool.acquire() as connection:
            begin = perf_counter()
            for data in encoded:
                async with connection.transaction():
                    await connection.copy_to_table(
                        "raw_copy", source=one(data), columns=COLUMNS, format="binary"
                    )
            return len(events) / (perf_counter() - begin)

    async def measure_serial(self, count: int) -> dict[str, Any]:
        """One producer, and beside it an INSERT in a transaction."""
        statement = f"INSERT INTO raw_copy VALUES ({', '.join(f'${n}' for n in range(1, 10))})"  # noqa: S608
        ours, bare = [], []
        events = self.take(2 * count)
        async with self.database.pool.acquire() as connection:
            for event, other in zip(events[::2], events[1::2], strict=True):
                begin = perf_counter()
                await self.log.append([event])
                ours.append(perf_counter() - begin)
                self.raw_position += 1
                at = (self.raw_position - 1, datetime.now(UTC), other.event_id, 0, other.stream, other.kind)
                values = (*at, os.urandom(16), os.urandom(32), other.payload)
                begin = perf_counter()
                async with connection.transaction():
                    await connection.execute(statement, *values)
                bare.append(perf_counter() - begin)
        self.count(events[::2])
        return {
            "serial_vs_insert_p50": median(ours) / median(bare),
            "serial_p50_ms": median(ours) * 1e3,
            "insert_p50_ms": median(bare) * 1e3,
        }

    async def measure_reading(self, count: int) -> dict[str, Any]:
        """Pages through the log, and beside it a bare cursor on the same rows."""
        end = await self.log.next_position()
        start = max(0, end - count) - 1
        ours, bare = [], []
        for _ in range(ROUNDS):
            begin, after = perf_counter(), start
            while page := await self.log.read(after=after, upto=end - 1):
                after = page[-1].position
            ours.append((after - start) / (perf_counter() - begin))
            async with self.database.pool.acquire() as connection, connection.transaction():
                begin, seen = perf_counter(), 0
                query = f"SELECT {', '.join(COLUMNS)} FROM event_log WHERE position > $1 ORDER BY position"  # noqa: S608
                async for _row in connection.cursor(query, start, prefetch=1_000):
                    seen += 1
                bare.append(seen / (perf_counter() - begin))
        return {"read_vs_cursor": median(ours) / median(bare), "read_events_per_s": median(ours)}

    async def measure_following(self, count: int) -> dict[str, Any]:
        """From the answer to a commit until a follower of another process's making has the event."""
        seen: dict[int, float] = {}
        committed: dict[int, float] = {}
        last = await self.log.next_position() + count - 1

        async with open_log(self.database, max_payload_bytes=1 << 20) as elsewhere:

            async def follow() -> None:
                async for page in elsewhere.follow(after=last - count):
                    seen.update(dict.fromkeys((event.position for event in page), perf_counter()))
                    if page[-1].position >= last:
                        return

            following = asyncio.create_task(follow())
            await elsewhere.watch.beyond(last - count - 1)
            for event in self.take(count):
                self.count([event])
                [position] = await self.log.append([event])
                committed[position] = perf_counter()
                await asyncio.sleep(0.002)
            await following
        return {"follow_p50_ms": median(seen[p] - committed[p] for p in committed) * 1e3}

    async def grow(self, total: int) -> dict[str, Any]:
        """Let the log grow to `total` events, and measure appending there."""
        count = min(50_000, max(FEWEST, total // 25))
        await self.fill(total - count * ROUNDS * 2)
        self.say(f"appending at {total:,} events")
        appending = await self.measure_appending(count)
        return {"events": await self.log.next_position(), **appending}

    async def fill(self, total: int) -> None:
        """Append until the log holds `total` events.

        Inventing an event takes longer than appending it. So some are appended again and again, as the events
        of other sessions on other calls: the indexes grow as they do with new ones.
        """
        begin, start = perf_counter(), await self.log.next_position()
        events: list[NewEvent] = []
        while (there := await self.log.next_position()) < total:
            rate = (there - start) / (perf_counter() - begin)
            left = f", {rate:,.0f}/s, {(total - there) / rate:,.0f} s left" if rate else ""
            self.say(f"filling: {there:,} of {total:,}{left}")
            events = events or self.take(min(FILL, total - there))
            await self.bulk(as_others(events[: total - there]))

    async def measure_size(self) -> dict[str, Any]:
        """Bytes an event on disk; the write-ahead log of some more events; and how fast all is verified."""
        total = await self.log.next_position()
        row = await self.database.pool.fetchrow(SIZES)
        assert row is not None
        sizes = dict(row)
        payload = self.payload_bytes
        lsn = await self.database.pool.fetchval("SELECT pg_current_wal_insert_lsn()")
        await self.bulk(self.take(WARM_UP))
        wal = await self.database.pool.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", lsn)
        return {
            "events": total,
            "bytes_vs_payload": sum(sizes.values()) / payload,
            "payload_bytes_per_event": payload / total,
            **{f"{name}_bytes_per_event": size / total for name, size in sizes.items()},
            "wal_bytes_per_event": float(wal) / WARM_UP,
        }

    async def measure_verifying(self) -> dict[str, Any]:
        begin = perf_counter()
        report = await verify_log(self.database)
        return {"verify_events_per_s": report.size / (perf_counter() - begin), "verified": report.intact}

    async def measure_far_away(self) -> dict[str, Any]:
        """The same appends when each round trip to the database takes longer."""
        async with (
            delayed(self.database.url, FAR_S) as url,
            open_pools(url) as database,
            open_log(database, max_payload_bytes=1 << 20) as log,
        ):
            far = Bench(database, log, self.say, self.traffic)
            await far.concurrent(self.take(PRODUCERS))
            rate, batch = await far.timed(far.concurrent, self.take(20 * PRODUCERS))
            alone = []
            for event in self.take(FAR_ALONE):
                begin = perf_counter()
                await log.append([event])
                alone.append(perf_counter() - begin)
        return {
            "far_round_trip_ms": FAR_S * 1e3,
            "far_append_events_per_s": rate,
            "far_batch": batch,
            "far_serial_p50_ms": median(alone) * 1e3,
        }


def as_others(events: Sequence[NewEvent]) -> list[NewEvent]:
    """The same events of other producers, in the same turns, in streams as many and as long as theirs."""
    producers: dict[int, Producer] = {}
    streams: dict[str, str] = {}
    others = []
    for event_id, stream, kind, payload in events:
        producer = producers.get(event_id.int >> COUNT_BITS)
        if producer is None:
            producer = producers[event_id.int >> COUNT_BITS] = Producer.new()
        if (other := streams.get(stream)) is None:
            other = streams[stream] = f"{stream.partition('-')[0]}-{uuid4().hex}"
        others.append(NewEvent(producer.event_id(Producer.count_of(event_id)), other, kind, payload))
    return others


@contextmanager
def memory(result: dict[str, Any], what: str) -> Iterator[None]:
    """Put what this process takes of memory before and after into `result`, in MiB."""
    result[f"{what}_rss_before_mib"] = resident_mib()
    yield
    result[f"{what}_rss_after_mib"] = resident_mib()


def resident_mib() -> float:
    """Resident memory now; where the system does not say, the most that it ever was."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024


def needed_bytes(total: int) -> int:
    """The room on disk for so many events, the rows of COPY beside them, and the write-ahead log."""
    return total * BYTES_PER_EVENT + WAL_BYTES


async def run_bench(
    server: URL, total: int, say: Callable[[str], None], *, grow_to: int = 0
) -> dict[str, Any]:
    """All figures, at `total` events; appending is also measured at each stage on the way.

    With `grow_to` the log then grows to so many events, and appending is measured on that way too.
    """
    async with (
        fresh_database(server) as database,
        open_log(database, max_payload_bytes=1 << 20) as log,
    ):
        bench = Bench(database, log, say)
        say("warming up")
        await bench.warm_up()
        result: dict[str, Any] = {}
        with memory(result, "append"):
            growth = [await bench.grow(size) for size in stages(0, total)]
        result |= {**growth[-1], "append_events_per_s": growth[-1]["append_concurrent_events_per_s"]}
        say("one producer, reading, following")
        result |= await bench.measure_serial(ALONE)
        with memory(result, "read"):
            result |= await bench.measure_reading(100_000)
        result |= await bench.measure_following(FOLLOWED)
        say("size, verification")
        result |= await bench.measure_size()
        with memory(result, "verify"):
            result |= await bench.measure_verifying()
        result["verify_worker_rss_most_mib"] = getrusage(RUSAGE_CHILDREN).ru_maxrss / 1024
        say(f"with {FAR_S * 1e3:.0f} ms added to each round trip")
        result |= await bench.measure_far_away()
        growth += [await bench.grow(size) for size in stages(total, grow_to)]
        return {**result, "growth": growth}


def stages(beyond: int, upto: int) -> list[int]:
    """The sizes at which appending is measured, on the way from one size of the log to another."""
    return [size for size in STAGES if beyond < size < upto] + [upto] * (upto > beyond)


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


def pieces(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
