"""Appending, with group commit.

Whoever appends hands over a request, its payloads packed and committed to, and waits. One task per process,
the appender, takes all requests that have gathered while the last transaction ran and writes them in one
transaction of its own (`service.log.transaction`). A request that cannot be granted (a condition, a reused
id) is left out and told so; the others go in.

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
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from uuid import UUID

import asyncpg

from service.errors import CalltrailError, DatabaseError, DatabaseUnavailable, OutcomeUnknown
from service.log import sql
from service.log.codec import AS_IS, Codecs
from service.log.copy import encode_rest
from service.log.event import SALT_BYTES, Condition, NewEvent, Statement, check_event, commit_to
from service.log.transaction import AlreadyThere, Prepared, State, Transaction
from service.log.watch import HeadWatch
from service.postgres import Database, database_errors
from service.tlog.entry import entry_pieces

logger = logging.getLogger(__name__)

BATCH_LIMIT = 4_000  # events in one transaction, unless a single request holds more
BATCH_BYTES = 16 << 20  # of payloads, as they are stored
MANY = 64  # requests
NEAR_S = 0.025  # a database that commits such a batch faster than this is near
BREATH = 64  # events of one request that are prepared before others get their turn
KEEP_TRYING_S = 10.0
LOCK_TIMEOUT_MS = 5_000


class Request:
    """Events that go in together, and the future that tells their positions."""

    __slots__ = ("also", "conditions", "events", "positions")

    def __init__(
        self, events: Sequence[Prepared], conditions: Sequence[Condition], also: Sequence[Statement]
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

    def __init__(
        self, database: Database, watch: HeadWatch, codecs: Codecs, *, max_payload_bytes: int
    ) -> None:
        self._database = database
        self._watch = watch
        self._codecs = codecs
        self._max_payload_bytes = max_payload_bytes
        self._waiting: list[Request] = []
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._state = State()
        self._stepped: UUID | None = None
        self._last_s = 0.0
        self._last_taken = 0

    async def start(self) -> None:
        """Begin; where the database can be reached, with the dictionary that it names."""
        with suppress(DatabaseError), database_errors():
            await self._codecs.load(self._database.pool)
            self._state = State(codec=await self._database.pool.fetchval(sql.CODEC_IN_USE))
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
        prepared = self._prepare(events[:BREATH])
        for at in range(BREATH, len(events), BREATH):
            await asyncio.sleep(0)
            prepared += self._prepare(events[at : at + BREATH])
        request = Request(prepared, conditions, also)
        self._waiting.append(request)
        self._work.set()
        return await request.positions

    def _prepare(self, events: Sequence[NewEvent]) -> list[Prepared]:
        """Do what needs no lock: pack the payloads and commit to them."""
        pack = self._codecs[self._state.codec].pack if self._state.codec != AS_IS else keep
        salts = os.urandom(SALT_BYTES * len(events))
        prepared = []
        for at, event in enumerate(events):
            event_id, stream, kind, payload = event
            salt = salts[at * SALT_BYTES : (at + 1) * SALT_BYTES]
            commitment = commit_to(salt, payload)
            codec, stored = pack(payload)
            rest = encode_rest(event_id, codec, stream, kind, salt, commitment, stored)
            pieces = entry_pieces(event_id=str(event_id), stream=stream, kind=kind, commitment=commitment)
            prepared.append(Prepared(event, rest, *pieces))
        return prepared

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._last_taken = 0  # those who were answered last are among those who come now
                await self._work.wait()
            batch = self._take_batch()
            begin = perf_counter()
            try:
                await self._write(batch)
            except CalltrailError as error:
                for request in batch:
                    request.refuse(error)
            except BaseException:
                for request in batch:
                    request.refuse(OutcomeUnknown("the appender was stopped while it wrote"))
                raise
            self._last_s = perf_counter() - begin

    def _take_batch(self) -> list[Request]:
        """What is waiting, up to the limits.

        Of many producers only half are taken, so that the others prepare while these are written. With a
        database far away time is lost on the way and not in preparing: then all go at once.
        """
        events = size = taken = 0
        most = len(self._waiting)
        if self._last_s < NEAR_S:
            most = max(MANY, (most + self._last_taken + 1) // 2)
        for request in self._waiting[:most]:
            events += len(request.events)
            size += sum(len(prepared.rest) for prepared in request.events)
            if taken and (events > BATCH_LIMIT or size > BATCH_BYTES):
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        self._last_taken = taken
        if not self._waiting:
            self._work.clear()
        return batch

    async def _write(self, batch: list[Request]) -> None:
        """Write `batch`, again and again while the database is away, up to KEEP_TRYING_S."""
        deadline = asyncio.get_running_loop().time() + KEEP_TRYING_S
        in_doubt = thorough = False
        for attempt in itertools.count():
            transaction = Transaction(batch, self._state, self._codecs, thorough=thorough)
            try:
                with database_errors():
                    self._connection = self._connection or await self._connect()
                    await transaction.run(self._connection)
            except AlreadyThere:
                thorough = True
            except DatabaseError as error:
                self._drop_connection()
                in_doubt |= transaction.committing
                thorough |= in_doubt
                last_chance = asyncio.get_running_loop().time() > deadline
                if last_chance or not isinstance(error, DatabaseUnavailable):
                    if in_doubt:
                        raise OutcomeUnknown(f"the answer to a commit was lost: {error}") from error
                    raise
                logger.warning("append is tried again", extra={"attempt": attempt, "fault": str(error)})
                await asyncio.sleep(min(1.0, 0.02 * 2**attempt))
            except CalltrailError:
                self._drop_connection()
                raise
            else:
                await self._committed(transaction.state)
                self._note_step(transaction.stepped)
                answer(batch, transaction.fates)
                return

    async def _committed(self, state: State) -> None:
        """Go on from `state`; new payloads are packed with its codec as soon as its dictionary is read."""
        if state.codec != self._state.codec and self._codecs.missing([state.codec]):
            try:
                with database_errors():
                    await self._codecs.load(self._database.pool)
            except DatabaseError:
                state = state._replace(codec=self._state.codec)
        self._state = state
        self._watch.advance(state.tree.size)

    def _note_step(self, stepped: NewEvent | None) -> None:
        """Record, once, that the clock was set back."""
        if stepped is not None and stepped.event_id != self._stepped:
            self._stepped = stepped.event_id
            request = Request(self._prepare([stepped]), (), ())
            request.positions.add_done_callback(asyncio.Future.exception)  # another process may be first
            self._waiting.append(request)
            self._work.set()

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


def answer(batch: Sequence[Request], fates: Sequence[list[int] | CalltrailError]) -> None:
    """Tell every request its fate."""
    for request, fate in zip(batch, fates, strict=True):
        if isinstance(fate, CalltrailError):
            request.refuse(fate)
        else:
            request.grant(fate)


def keep(payload: bytes) -> tuple[int, bytes]:
    """A payload as it is: before the log's dictionary is known."""
    return AS_IS, payload
