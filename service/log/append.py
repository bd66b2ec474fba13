"""Appending, with group commit.

Whoever appends hands over a request and waits. One task per process, the appender, takes all requests that
have gathered while the last transaction ran and writes them in one transaction of its own: lock the head,
see which ids are there already, check the conditions, COPY, move the head, commit. A request that cannot be
granted (a condition, a reused id) is left out and told so; the others go in.

The promises: positions are given out under the head's lock, so their order is the order of commit and there
are no holes; a request's events go in together or not at all; what is answered is durable. When the
connection breaks, the batch is tried again: ids that a lost commit had written are recognised. Only when the
database stays away is the caller told: `DatabaseUnavailable` (certainly nothing written) or `OutcomeUnknown`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import asyncpg

from service.errors import (
    AppendConflict,
    CalltrailError,
    DatabaseError,
    DatabaseUnavailable,
    EventIdReused,
    OutcomeUnknown,
)
from service.log import codec, sql
from service.log.copy import Row, encode_rows
from service.log.event import SALT_BYTES, Condition, NewEvent, Statement, check_event, commit_to
from service.log.watch import HeadWatch
from service.postgres import Database, database_errors

logger = logging.getLogger(__name__)

BATCH_LIMIT = 2_000  # events in one transaction, unless a single request holds more
BATCH_BYTES = 16 << 20
KEEP_TRYING_S = 10.0
LOCK_TIMEOUT_MS = 5_000


class Request:
    """Events that go in together, and the future that tells their positions."""

    __slots__ = ("also", "conditions", "events", "positions")

    def __init__(
        self, events: Sequence[NewEvent], conditions: Sequence[Condition], also: Sequence[Statement]
    ) -> None:
        self.events = events
        self.conditions = conditions
        self.also = also
        self.positions: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def refuse(self, error: CalltrailError) -> None:
        if not self.positions.done():
            self.positions.set_exception(error)

    def grant(self, positions: list[int]) -> None:
        if not self.positions.done():
            self.positions.set_result(positions)


class Appender:
    """The one writer of this process. `max_payload_bytes` bounds each event's payload."""

    def __init__(self, database: Database, watch: HeadWatch, *, max_payload_bytes: int) -> None:
        self._database = database
        self._watch = watch
        self._max_payload_bytes = max_payload_bytes
        self._waiting: list[Request] = []
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._partition_end = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="log appender")

    async def stop(self) -> None:
        """Write what is waiting, then stop."""
        task, self._task = self._task, None
        if task is not None:
            while self._waiting and not task.done():
                await asyncio.wait([r.positions for r in self._waiting])
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def append(
        self,
        events: Sequence[NewEvent],
        *,
        conditions: Sequence[Condition] = (),
        also: Sequence[Statement] = (),
    ) -> list[int]:
        """Append `events` together and return their positions once they are durable.

        An event whose id is in the log already, with the same content, is not written again and its position
        is returned. When all are there, neither `conditions` nor `also` count any more: it is the repetition
        of a request that was granted.

        Raises:
            BadEvent: an event is not one that the log takes.
            AppendConflict: a condition does not hold.
            EventIdReused: an id is in the log with other content.
            DatabaseUnavailable: nothing was written.
            OutcomeUnknown: the commit's answer was lost; append the same again.

        """
        for event in events:
            check_event(event, max_payload_bytes=self._max_payload_bytes)
        if not events:
            return []
        request = Request(events, conditions, also)
        self._waiting.append(request)
        self._work.set()
        return await request.positions

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            batch = self._take_batch()
            try:
                await self._write(batch)
            except CalltrailError as error:
                for request in batch:
                    request.refuse(error)
            except BaseException:
                for request in batch:
                    request.refuse(OutcomeUnknown("the appender was stopped while it wrote"))
                raise

    def _take_batch(self) -> list[Request]:
        events = size = taken = 0
        for request in self._waiting:
            events += len(request.events)
            size += sum(len(event.payload) for event in request.events)
            if taken and (events > BATCH_LIMIT or size > BATCH_BYTES):
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        if not self._waiting:
            self._work.clear()
        return batch

    async def _write(self, batch: list[Request]) -> None:
        """Write `batch`, again and again while the database is away, up to KEEP_TRYING_S."""
        deadline = asyncio.get_running_loop().time() + KEEP_TRYING_S
        in_doubt = False
        for attempt in itertools.count():
            transaction = Transaction(batch, self._partition_end)
            try:
                with database_errors():
                    self._connection = self._connection or await self._connect()
                    await transaction.run(self._connection)
            except DatabaseError as error:
                self._drop_connection()
                in_doubt |= transaction.committing
                last_chance = asyncio.get_running_loop().time() > deadline
                if last_chance or not isinstance(error, DatabaseUnavailable):
                    if in_doubt:
                        raise OutcomeUnknown(f"the answer to a commit was lost: {error}") from error
                    raise
                logger.warning("append is tried again", extra={"attempt": attempt, "fault": str(error)})
                await asyncio.sleep(min(1.0, 0.02 * 2**attempt))
            else:
                self._partition_end = transaction.partition_end
                if transaction.next_position is not None:
                    self._watch.advance(transaction.next_position)
                transaction.answer()
                return

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        connection = await self._database.connect()
        await connection.execute(
            f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET idle_in_transaction_session_timeout = '60s'"
        )
        return connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class Transaction:
    """One attempt to write a batch. After `run` returned, `answer` tells every request its fate."""

    def __init__(self, batch: list[Request], partition_end: int) -> None:
        self._batch = batch
        self._fates: list[list[int] | CalltrailError] = []
        self.partition_end = partition_end
        self.committing = False
        self.next_position: int | None = None

    def answer(self) -> None:
        for request, fate in zip(self._batch, self._fates, strict=True):
            if isinstance(fate, CalltrailError):
                request.refuse(fate)
            else:
                request.grant(fate)

    async def run(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await connection.execute("BEGIN")
        head = await connection.fetchrow(sql.LOCK_HEAD)
        assert head is not None
        known = await self._known(connection)
        broken = await self._broken_conditions(connection)
        recorded_at = max(head["now"], head["recorded_at"])
        rows, also = self._plan(head["next_position"], recorded_at, known, broken)
        if not rows:
            await connection.execute("ROLLBACK")
            return
        self.next_position = rows[-1].position + 1
        if self.next_position > self.partition_end:
            await self._ensure_partitions(connection, rows)
        await connection.copy_to_table(
            "event_log", source=in_one_piece(encode_rows(rows)), columns=sql.COLUMNS, format="binary"
        )
        for statement in also:
            await connection.execute(statement.sql, *statement.arguments)
        await connection.execute(sql.MOVE_HEAD, self.next_position, recorded_at)
        self.committing = True
        await connection.execute("COMMIT")

    async def _known(self, connection: asyncpg.Connection[asyncpg.Record]) -> dict[UUID, KnownEvent]:
        ids = [event.event_id for request in self._batch for event in request.events]
        found = await connection.fetch(sql.FIND_IDS, ids)
        return {row["event_id"]: KnownEvent.of_row(row) for row in found}

    async def _broken_conditions(
        self, connection: asyncpg.Connection[asyncpg.Record]
    ) -> dict[tuple[str, int], int]:
        conditions = {condition for request in self._batch for condition in request.conditions}
        if not conditions:
            return {}
        streams, afters = zip(*conditions, strict=True)
        found = await connection.fetch(sql.FIND_BEYOND, streams, afters)
        return {(row["stream"], row["after"]): row["found"] for row in found if row["found"] is not None}

    def _plan(
        self,
        next_position: int,
        recorded_at: datetime,
        known: dict[UUID, KnownEvent],
        broken: dict[tuple[str, int], int],
    ) -> tuple[list[Row], list[Statement]]:
        """Decide each request's fate in the order of arrival; an earlier one counts for a later one."""
        rows: list[Row] = []
        also: list[Statement] = []
        newest: dict[str, int] = {}
        for request in self._batch:
            reused = find_reused(request, known)
            fresh = [event for event in request.events if event.event_id not in known]
            conflict = find_conflict(request, broken, newest) if fresh else None
            if reused or conflict:
                self._fates.append(reused or conflict or DatabaseError("unreachable"))
                continue
            for event in fresh:
                if event.event_id in known:
                    continue  # twice in the same request
                salt = os.urandom(SALT_BYTES)
                stored_as, stored = codec.encode(event.payload)
                commitment = commit_to(salt, event.payload)
                rows.append(
                    Row(
                        next_position,
                        recorded_at,
                        event.event_id,
                        stored_as,
                        event.stream,
                        event.kind,
                        salt,
                        commitment,
                        stored,
                    )
                )
                known[event.event_id] = KnownEvent(next_position, event.stream, event.kind, event.payload)
                newest[event.stream] = next_position
                next_position += 1
            if fresh:
                also.extend(request.also)
            self._fates.append([known[event.event_id].position for event in request.events])
        return rows, also

    async def _ensure_partitions(
        self, connection: asyncpg.Connection[asyncpg.Record], rows: list[Row]
    ) -> None:
        for position in (rows[0].position, rows[-1].position):
            self.partition_end = await connection.fetchval(sql.ENSURE_PARTITION, position)


class KnownEvent:
    """What is known of an id: where it stands and what was written under it (None: redacted)."""

    __slots__ = ("kind", "payload", "position", "stream")

    def __init__(self, position: int, stream: str, kind: str, payload: bytes | None) -> None:
        self.position = position
        self.stream = stream
        self.kind = kind
        self.payload = payload

    @classmethod
    def of_row(cls, row: asyncpg.Record) -> KnownEvent:
        payload = None if row["redacted"] else codec.decode(row["codec"], row["payload"])
        return cls(row["position"], row["stream"], row["kind"], payload)

    def is_same(self, event: NewEvent) -> bool:
        same_payload = self.payload is None or self.payload == event.payload
        return same_payload and self.stream == event.stream and self.kind == event.kind


def find_reused(request: Request, known: dict[UUID, KnownEvent]) -> EventIdReused | None:
    for event in request.events:
        there = known.get(event.event_id)
        if there is not None and not there.is_same(event):
            return EventIdReused(event.event_id, there.position)
    return None


def find_conflict(
    request: Request, broken: dict[tuple[str, int], int], newest: dict[str, int]
) -> AppendConflict | None:
    for condition in request.conditions:
        found = newest.get(condition.stream, broken.get(condition))
        if found is not None and found > condition.after:
            return AppendConflict(condition.stream, condition.after, found)
    return None


async def in_one_piece(data: bytes) -> AsyncIterator[bytes]:
    yield data
