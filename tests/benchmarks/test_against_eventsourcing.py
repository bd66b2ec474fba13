"""The same work done by the log and by the PyPI package `eventsourcing` (its Postgres recorder).

Each stores the same events one by one, as producers do that wait for each to be durable, and in bulk. No time
is asserted: the figures are printed (``pytest -s``) and kept as properties of the test.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import pytest
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from service.cli.traffic import Traffic
from service.log import EventLog, NewEvent
from service.postgres import Database, connect_arguments

PRODUCERS = 50
CONNECTIONS = 16
BULK = 500


@pytest.fixture
def recorder(database: Database) -> Iterator[PostgresApplicationRecorder]:
    """The package's recorder in the log's own database."""
    arguments = connect_arguments(database.url)
    datastore = PostgresDatastore(
        dbname=arguments["database"],
        host=arguments["host"],
        port=arguments.get("port", 5432),
        user=arguments["user"],
        password=arguments.get("password", ""),
        pool_size=CONNECTIONS,
        max_waiting=PRODUCERS,
        originator_id_type="text",
        # Else it inserts by psycopg's pipeline mode, which waits for ever, every now and then, when what it
        # sends does not fit into the socket at once. With functions a bulk is one statement, and quicker.
        enable_db_functions=True,
    )
    made = PostgresApplicationRecorder(datastore)
    made.create_table()
    yield made
    datastore.close()


class Versions:
    """The package counts the events of each stream; the log needs no such count."""

    def __init__(self) -> None:
        self._counts: dict[str, Iterator[int]] = {}

    def theirs(self, event: NewEvent) -> StoredEvent:
        version = next(self._counts.setdefault(event.stream, itertools.count(1)))
        return StoredEvent(event.stream, version, event.kind, event.payload)


async def ours_one_by_one(log: EventLog, events: Sequence[NewEvent]) -> None:
    async def produce(mine: Sequence[NewEvent]) -> None:
        for event in mine:
            await log.append([event])

    await asyncio.gather(*(produce(events[first::PRODUCERS]) for first in range(PRODUCERS)))


def theirs_one_by_one(recorder: PostgresApplicationRecorder, events: Sequence[StoredEvent]) -> None:
    def produce(mine: Sequence[StoredEvent]) -> None:
        for event in mine:
            recorder.insert_events([event])

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(produce, [events[first::CONNECTIONS] for first in range(CONNECTIONS)]))


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.long)])
async def test_both_hold_the_same_events_and_the_ratio_is_told(
    log: EventLog,
    recorder: PostgresApplicationRecorder,
    count: int,
    record_property: Callable[[str, object], None],
) -> None:
    traffic, versions = Traffic(seed=11), Versions()
    single, bulk = list(traffic.events(count)), list(traffic.events(count))
    their_single, their_bulk = ([versions.theirs(event) for event in events] for events in (single, bulk))
    figures: dict[str, float] = {}

    begin = perf_counter()
    await ours_one_by_one(log, single)
    figures["ours_events_per_s"] = count / (perf_counter() - begin)
    begin = perf_counter()
    await asyncio.to_thread(theirs_one_by_one, recorder, their_single)
    figures["theirs_events_per_s"] = count / (perf_counter() - begin)

    begin = perf_counter()
    for at in range(0, count, BULK):
        await log.append(bulk[at : at + BULK])
    figures["ours_bulk_events_per_s"] = count / (perf_counter() - begin)
    begin = perf_counter()
    for at in range(0, count, BULK):
        await asyncio.to_thread(recorder.insert_events, their_bulk[at : at + BULK])
    figures["theirs_bulk_events_per_s"] = count / (perf_counter() - begin)

    figures["append_vs_eventsourcing"] = figures["ours_events_per_s"] / figures["theirs_events_per_s"]
    figures["bulk_vs_eventsourcing"] = figures["ours_bulk_events_per_s"] / figures["theirs_bulk_events_per_s"]
    for name, figure in figures.items():
        record_property(name, figure)
        print(f"{name:26} {figure:12,.2f}")  # noqa: T201 what the test is for

    ours = [event async for event in everything(log)]
    theirs = recorder.select_notifications(start=1, limit=3 * count)
    assert sorted((event.stream, event.kind, event.payload) for event in [*single, *bulk]) == sorted(ours)
    assert sorted((str(one.originator_id), one.topic, one.state) for one in theirs) == sorted(ours)


async def everything(log: EventLog) -> AsyncIterator[tuple[str, str, bytes]]:
    after = -1
    while page := await log.read(after=after):
        for event in page:
            yield event.stream, event.kind, event.payload
        after = page[-1].position
