"""How fast projections are: rebuild, live lag, and questions as of a moment, on a made-up log.

What is measured is the product's own code on the Postgres that the command opens, durable as the product
runs it. Ratios count more than figures: `rebuild_vs_cursor` is the rebuild's speed against a bare reading of
the same log by one process, in the same run.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import time
from collections.abc import Callable
from typing import Any

from service.log import EventLog
from service.postgres import Database
from service.projections.catalogue import catalogue
from service.projections.engine import Engine
from service.projections.histories import Histories
from service.projections.queries import Queries
from service.projections.rebuild import Rebuilder

APPENDED = 2_000  # events an append
RATE = 5_000  # events a second while the lag is measured
Say = Callable[[str], None]


async def bench(
    database: Database,
    log: EventLog,
    *,
    events: int,
    live: int,
    lag_seconds: float,
    processes: int | None,
    say: Say,
) -> dict[str, Any]:
    """Append `events` made-up events, `live` calls at a time, and measure; the engine must not be running.

    A rebuild at a quarter of the log comes first, so that the memory of its processes is seen at two sizes.
    """
    source = Histories(live=live).events()
    rebuilder = Rebuilder(database, log, shares=processes)
    names = [projection.name for projection in catalogue()]
    first = events // 4
    say(f"appending {events:,} events, and rebuilding at {first:,}")
    append_s = await fill(log, source, first)
    await rebuilder.rebuild(names)
    memory_at_quarter = largest_process_mb()
    append_s += await fill(log, source, events - first)
    say("reading them with a bare cursor")
    cursor_s = await read_all(log)
    say("rebuilding all projections")
    began = time.perf_counter()
    report = await rebuilder.rebuild(names)
    rebuild_s = time.perf_counter() - began
    result: dict[str, Any] = {
        "events": events,
        "append_events_per_s": round(events / append_s),
        "cursor_events_per_s": round(report.events / cursor_s),
        "rebuild_events_per_s": round(report.events / rebuild_s),
        "rebuild_vs_cursor": round(cursor_s / rebuild_s, 3),
        "rebuild_processes": report.shares,
    }
    result |= {"rebuild_mb_at_quarter": memory_at_quarter, "rebuild_mb": largest_process_mb()}
    say("asking as of moments")
    result |= await ask(log, Queries(database))
    say(f"following {RATE:,} events/s for {lag_seconds:.0f} s")
    result |= await follow(database, log, source, lag_seconds)
    result["memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return result


def largest_process_mb() -> int:
    """The most memory that a process of a rebuild has had."""
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


async def fill(log: EventLog, source: Any, events: int) -> float:
    began = time.perf_counter()
    for start in range(0, events, APPENDED):
        await log.append(list(itertools.islice(source, min(APPENDED, events - start))))
    return time.perf_counter() - began


async def read_all(log: EventLog) -> float:
    """Read the log once with the same pages as a rebuild, and do nothing with it; seconds."""
    began, after = time.perf_counter(), -1
    while page := await log.read(after=after, limit=5_000):
        after = page[-1].position
    return time.perf_counter() - began


async def ask(log: EventLog, queries: Queries) -> dict[str, Any]:
    """Ask for single calls, and for all, as of moments drawn from the later nine tenths of the log."""
    rng = random.Random(1)  # noqa: S311 made-up questions
    head = await log.next_position()
    one: list[float] = []
    every: list[float] = []
    legs = 0
    for _ in range(400):
        position = rng.randrange(head // 10, head)
        stored = (await log.at([position]))[0]
        call_id = stored.stream.partition("-")[2]
        began = time.perf_counter()
        await queries.legs(as_of=position, call_id=call_id)
        one.append(time.perf_counter() - began)
    for _ in range(20):
        position = rng.randrange(head // 10, head)
        began = time.perf_counter()
        legs = len(await queries.legs(as_of=position))
        every.append(time.perf_counter() - began)
    return {
        "as_of_call_p99_ms": milliseconds(one, 0.99),
        "as_of_all_ms": milliseconds(every, 0.5),
        "as_of_all_worst_ms": milliseconds(every, 1),
        "as_of_all_legs": legs,
    }


async def follow(database: Database, log: EventLog, source: Any, seconds: float) -> dict[str, Any]:
    """The lag of the live engine: from an append's return until the views have its events."""
    engine = Engine(database, log, catalogue())
    engine.loop.start()
    lags: list[float] = []
    every_s = 0.02
    try:
        await engine.reached(await log.next_position() - 1, timeout_s=600)
        appended: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
        watching = asyncio.create_task(watch(engine, appended, lags))
        began = time.perf_counter()
        count = 0
        while (now := time.perf_counter() - began) < seconds:
            due = int(now * RATE) - count
            if due > 0:
                positions = await log.append(list(itertools.islice(source, due)))
                appended.put_nowait((positions[-1], time.perf_counter()))
                count += due
            await asyncio.sleep(every_s)
        rate = count / (time.perf_counter() - began)
        appended.put_nowait(None)
        await watching
    finally:
        await engine.loop.stop()
    return {
        "lag_p50_ms": milliseconds(lags, 0.5),
        "lag_p99_ms": milliseconds(lags, 0.99),
        "lag_events_per_s": round(rate),
    }


async def watch(engine: Engine, appended: asyncio.Queue[tuple[int, float] | None], lags: list[float]) -> None:
    """Note, for each append, how long after it the views had all of it."""
    while (item := await appended.get()) is not None:
        position, at = item
        await engine.reached(position, timeout_s=60)
        lags.append(time.perf_counter() - at)


def milliseconds(times: list[float], quantile: float) -> float:
    ordered = sorted(times)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1000, 2)
