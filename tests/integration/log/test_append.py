from __future__ import annotations

import asyncio
import hashlib
from uuid import UUID

import asyncpg
import pytest

from service.errors import AppendConflict, BadEvent, EventIdReused
from service.events import ClockStepped, decode
from service.log import Condition, EventLog, NewEvent, Producer, Statement, open_log
from service.postgres import Database


def event(producer: Producer, count: int, payload: bytes = b"{}", stream: str = "call-1") -> NewEvent:
    return NewEvent(producer.event_id(count), stream, "NotificationReceived", payload)


async def test_positions_start_at_zero_and_have_no_holes_for_many_producers(log: EventLog) -> None:
    async def produce() -> list[int]:
        producer = Producer.new()
        return [(await log.append([event(producer, count)]))[0] for count in range(20)]

    given = await asyncio.gather(*(produce() for _ in range(25)))
    assert sorted(position for positions in given for position in positions) == list(range(500))
    assert all(positions == sorted(positions) for positions in given)


async def test_payloads_come_back_byte_for_byte_and_their_commitments_open(log: EventLog) -> None:
    payloads = [b"", b"\x00\xff\n", b'{"a": 1.0, "a":2}', "\U0001f4de é".encode(), bytes(range(256)) * 4_000]
    producer = Producer.new()
    await log.append([event(producer, count, payload) for count, payload in enumerate(payloads)])
    stored = await log.read()
    assert [one.payload for one in stored] == payloads
    for one in stored:
        assert one.salt is not None
        assert hashlib.sha256(one.salt + one.payload).digest() == one.commitment
    assert len({one.salt for one in stored}) == len(payloads)


async def test_appending_again_writes_nothing_and_tells_the_same_positions(log: EventLog) -> None:
    producer = Producer.new()
    events = [event(producer, count, b"%d" % count) for count in range(3)]
    first = await log.append(events)
    again = await asyncio.gather(*(log.append(events) for _ in range(5)))
    assert again == [first] * 5
    assert await log.append([*events, event(producer, 3)]) == [0, 1, 2, 3]
    assert await log.next_position() == 4


async def test_an_id_reused_for_other_content_is_refused_whole(log: EventLog) -> None:
    producer = Producer.new()
    await log.append([event(producer, 0, b"one")])
    for other in (
        event(producer, 0, b"two"),
        event(producer, 0, b"one", stream="call-2"),
        event(producer, 0, b"one")._replace(kind="Other"),
    ):
        with pytest.raises(EventIdReused) as caught:
            await log.append([event(producer, 1), other])
        assert caught.value.position == 0
    assert await log.next_position() == 1


async def test_of_those_that_race_on_a_condition_one_wins(log: EventLog) -> None:
    condition = [Condition("transfer-1", -1)]
    results = await asyncio.gather(
        *(
            log.append([event(Producer.new(), 0, stream="transfer-1")], conditions=condition)
            for _ in range(30)
        ),
        return_exceptions=True,
    )
    won = [result for result in results if isinstance(result, list)]
    lost = [result for result in results if isinstance(result, AppendConflict)]
    assert len(won) == 1
    assert len(lost) == 29
    assert {conflict.found for conflict in lost} == set(won[0])


async def test_a_condition_holds_for_its_own_stream_and_position_only(log: EventLog) -> None:
    [first] = await log.append([event(Producer.new(), 0, stream="transfer-1")])
    await log.append([event(Producer.new(), 0, stream="call-1")])
    [third] = await log.append(
        [event(Producer.new(), 0, stream="transfer-1")], conditions=[Condition("transfer-1", first)]
    )
    with pytest.raises(AppendConflict, match=f"position {third}, after the expected {first}"):
        await log.append(
            [event(Producer.new(), 0, stream="transfer-1")], conditions=[Condition("transfer-1", first)]
        )


async def test_a_repeated_conditional_append_is_recognised_not_refused(log: EventLog) -> None:
    events = [event(Producer.new(), 0, stream="transfer-1")]
    first = await log.append(events, conditions=[Condition("transfer-1", -1)])
    assert await log.append(events, conditions=[Condition("transfer-1", -1)]) == first


async def test_a_statement_goes_in_with_its_events_or_not_at_all(log: EventLog, database: Database) -> None:
    enter = (
        "INSERT INTO relay_cursor (name, position) "
        "SELECT name, 7 FROM jsonb_to_recordset($1) AS entered (name text)"
    )
    granted, refused = Statement(enter, {"name": "a"}), Statement(enter, {"name": "b"})
    await log.append([event(Producer.new(), 0, stream="transfer-1")], also=[granted])
    with pytest.raises(AppendConflict):
        await log.append([event(Producer.new(), 0)], conditions=[Condition("transfer-1", -1)], also=[refused])
    assert await database.pool.fetch("SELECT name FROM relay_cursor") == [("a",)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"stream": ""}, "stream"),
        ({"stream": "x" * 201}, "stream"),
        ({"stream": "a\nb"}, "stream"),
        ({"kind": ""}, "kind"),
        ({"kind": "x" * 81}, "kind"),
        ({"payload": bytes(2 << 20)}, "payload"),
    ],
)
async def test_what_the_log_does_not_take_is_named(
    log: EventLog, change: dict[str, object], field: str
) -> None:
    with pytest.raises(BadEvent) as caught:
        await log.append([event(Producer.new(), 0)._replace(**change)])  # type: ignore[arg-type]
    assert caught.value.field == field
    assert await log.next_position() == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_log SET payload = ''",
        "DELETE FROM event_log",
        "TRUNCATE event_log",
        "UPDATE event_log_000000 SET payload = ''",
        "DELETE FROM event_log_000000",
        "TRUNCATE event_log_000000",
    ],
)
async def test_the_database_refuses_every_change_to_its_owner_too(
    log: EventLog, owner: asyncpg.Connection[asyncpg.Record], statement: str
) -> None:
    await log.append([event(Producer.new(), 0)])
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await owner.execute(statement)
    assert len(await log.read()) == 1


async def test_recorded_at_is_held_when_the_clock_steps_back(log: EventLog, database: Database) -> None:
    await database.pool.execute("UPDATE log_head SET recorded_at = now() + interval '1 hour'")
    [held_at] = await database.pool.fetchrow("SELECT recorded_at FROM log_head")  # type: ignore[misc]
    async with open_log(database, max_payload_bytes=100) as other:
        for door in (log, other, log, other):
            await door.append([event(Producer.new(), 0)])
    stored = await log.read()
    assert {one.recorded_at for one in stored} == {held_at}
    assert await log.position_at(held_at) == len(stored) - 1
    [step] = [one for one in stored if one.kind == ClockStepped.kind()]
    told, _ = decode(step.kind, step.payload) or (None, b"")
    assert isinstance(told, ClockStepped)
    assert told.held_at == held_at > told.clock
    assert len(stored) == 5


@pytest.fixture
async def small_partitions(owner: asyncpg.Connection[asyncpg.Record]) -> None:
    """Ten positions in a partition."""
    await owner.execute(
        """
        CREATE OR REPLACE FUNCTION event_log_partition_size() RETURNS bigint
            LANGUAGE sql IMMUTABLE AS 'SELECT 10::bigint';
        DROP TABLE event_log_000000;
        """
    )


async def test_the_log_goes_on_in_the_next_partition(
    small_partitions: None, log: EventLog, database: Database, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    producer = Producer.new()
    await log.append([event(producer, count) for count in range(8)])
    positions = await log.append([event(producer, count) for count in range(8, 12)])
    assert positions == [8, 9, 10, 11]
    await log.append([event(producer, count) for count in range(12, 40)])
    counts = await database.pool.fetch(
        "SELECT tableoid::regclass::text AS name, count(*) AS n FROM event_log GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row) for row in counts] == [(f"event_log_00000{n}", 10) for n in range(4)]
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await owner.execute("TRUNCATE event_log_000001")


async def test_an_id_is_recognised_in_whichever_partition_it_is(
    small_partitions: None, log: EventLog, database: Database
) -> None:
    early, late, foreign = Producer.new(), Producer.new(), UUID(int=0xF << 124 | 1)
    first = [event(early, count) for count in range(9)]
    await log.append(first)
    await log.append([event(early, 9)._replace(event_id=foreign), event(early, 10)])
    for count in range(18):  # alone, so that one of them is the last of a partition
        await log.append([event(late, count)])
    async with open_log(database, max_payload_bytes=100) as restarted:
        for door in (log, restarted):
            assert await door.append(first) == list(range(9))
            assert await door.append([event(early, 9)._replace(event_id=foreign)]) == [9]
            for count in range(18):
                assert await door.append([event(late, count)]) == [11 + count]
            with pytest.raises(EventIdReused):
                await door.append([event(early, 4, b"other")])
    assert await log.next_position() == 29


async def test_a_killed_connection_costs_nothing_but_time(
    log: EventLog, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    async def produce(producer: Producer) -> None:
        for count in range(40):
            await log.append([event(producer, count, b"%d" % count, stream=f"session-{producer.key}")])

    async def kill() -> int:
        killed = 0
        while killed < 5:
            await log.watch.beyond(20 * killed)
            killed += await owner.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query ~ 'log_head|event_log_append' "
                "AND pid <> pg_backend_pid()"
            )
        return killed

    producers = [Producer.new() for _ in range(10)]
    await asyncio.gather(*(produce(producer) for producer in producers), kill())
    stored = await log.read()
    assert [one.position for one in stored] == list(range(400))
    for producer in producers:
        stream = await log.read_stream(f"session-{producer.key}")
        assert [int(one.payload) for one in stream] == list(range(40))


async def test_two_processes_on_one_log_take_turns(log: EventLog, database: Database) -> None:
    async with open_log(database, max_payload_bytes=100) as other:
        await asyncio.gather(*(door.append([event(Producer.new(), 0)]) for door in (log, other) * 20))
        stored = await other.read()
        assert [one.position for one in stored] == list(range(40))
        assert {one.kind for one in stored} == {"NotificationReceived"}  # no clock was found to be behind


def test_ids_of_a_producer_sort_in_order_and_tell_their_count() -> None:
    producer = Producer.new()
    ids = [producer.event_id(count) for count in (0, 1, 2, 255, 256, (1 << 32) - 1)]
    assert ids == sorted(ids)
    assert all(one.version == 8 for one in ids)
    assert [Producer.count_of(one) for one in ids] == [0, 1, 2, 255, 256, (1 << 32) - 1]
    assert Producer(producer.key).event_id(5) == producer.event_id(5)
    with pytest.raises(ValueError, match="not a producer's key"):
        Producer(UUID(int=0))
