"""Appending, with group commit.

Who appends alone while nothing is being written writes it himself. Otherwise he hands over a request and
waits: two tasks per process, the lanes, take the requests that have gathered and write them, each lane a
batch in one transaction of its own (`service.log.transaction`). While one batch is being written the next is
packed, committed to and drafted, on the supposition that the first will be in; Postgres sees to it that a
draft counts only if the log ends where it supposes. A request that cannot be granted (a condition, a reused
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
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from uuid import UUID

import asyncpg

from service.errors import CalltrailError, DatabaseError, DatabaseUnavailable, OutcomeUnknown
from service.log import sql
from service.log.clock import DatabaseClock
from service.log.codec import AS_IS, Codecs
from service.log.event import Condition, NewEvent, Row, Statement, check_event, pack_events
from service.log.transaction import AlreadyThere, State, Transaction
from service.log.tree import Tree
from service.log.watch import HeadWatch
from service.postgres import Database, database_errors

logger = logging.getLogger(__name__)

LANES = 2
BATCH_LIMIT = 4_000  # events in one transaction, unless a single request holds more
BATCH_BYTES = 64 << 20  # of payloads
FEW = 64  # events that are not worth being shared out among the lanes
ENOUGH = 1_000  # events that wait are a batch, however many are being written
BREATH = 64  # events that are packed, and answers that are given, before others get their turn
KEEP_TRYING_S = 10.0
LOCK_TIMEOUT_MS = 5_000


class Request:
    """Events that go in together, `size` bytes of payload, and the future that tells their positions."""

    __slots__ = ("also", "conditions", "events", "positions", "size")

    def __init__(
        self,
        events: Sequence[NewEvent],
        conditions: Sequence[Condition],
        also: Sequence[Statement],
        size: int,
    ) -> None:
        self.events = events
        self.size = size
        self.conditions = conditions
        self.also = also
        self.positions: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def answer(self, fate: list[int] | CalltrailError) -> None:
        if self.positions.done():
            return  # nobody waits any more
        if isinstance(fate, CalltrailError):
            self.positions.set_exception(fate)
        else:
            self.positions.set_result(fate)


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
        self._waiting_events = 0
        self._under_way = 0  # events that the lanes have taken and not yet written
        self._stirred = asyncio.Event()
        self._stopping = False
        self._lanes: list[asyncio.Task[None]] = []
        self._at_once = asyncio.Lock()  # held by who writes his own request
        self._idle: list[asyncpg.Connection[asyncpg.Record]] = []
        self._clock = DatabaseClock()
        self._turn = asyncio.Lock()  # to go on from `_state`
        self._state = State()  # once all that is under way is written
        self._written = Tree()
        self._stepped: UUID | None = None

    async def start(self) -> None:
        """Begin; where the database can be reached, with the dictionary that it names."""
        with suppress(DatabaseError), database_errors():
            await self._codecs.load(self._database.pool)
            self._state = State(codec=await self._database.pool.fetchval(sql.CODEC_IN_USE))
        self._lanes = [asyncio.create_task(self._lane(), name="log appender") for _ in range(LANES)]

    async def stop(self) -> None:
        """Write what is waiting, then stop; a database that does not answer is given up."""
        self._stopping = True
        self._stirred.set()
        if self._lanes:
            _, stuck = await asyncio.wait(self._lanes, timeout=2 * KEEP_TRYING_S)
            for lane in stuck:
                lane.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)
        async with self._at_once:
            pass  # who writes his own request gives up in KEEP_TRYING_S
        for connection in self._idle:
            connection.terminate()
        self._idle = []

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
        size = 0
        for event in events:
            check_event(event, max_payload_bytes=self._max_payload_bytes)
            size += len(event.payload)
        if not events:
            return []
        request = Request(events, conditions, also, size)
        at_rest = not (self._waiting or self._under_way or self._stopping) and bool(self._lanes)
        self._waiting.append(request)
        self._waiting_events += len(events)
        try:
            if at_rest:
                await asyncio.sleep(0)  # who appends at the same moment shares the batch
                if self._waiting == [request] and not self._under_way:
                    await self._write_alone(request)
        except BaseException:
            request.positions.cancel()  # nobody waits any more
            raise
        finally:
            if self._waiting:
                self._stirred.set()
        return await request.positions

    async def _write_alone(self, request: Request) -> None:
        """Write the only request that waits, without a lane."""
        async with self._at_once:
            self._waiting, self._waiting_events = [], 0
            self._under_way = len(request.events)
            [fate] = await self._fates([request])
        request.answer(fate)

    async def _lane(self) -> None:
        while batch := await self._take():
            try:
                fates = await self._fates(batch)
            except BaseException:
                for request in batch:
                    request.answer(OutcomeUnknown("the appender was stopped while it wrote"))
                raise
            for at in range(0, len(batch), BREATH):
                for request, fate in zip(batch[at : at + BREATH], fates[at : at + BREATH], strict=True):
                    request.answer(fate)
                await asyncio.sleep(0)

    async def _take(self) -> list[Request]:
        """The next batch: some of what is waiting, up to the limits; nothing once the appender is to stop.

        While another is being written there is time to let a batch gather that is as large. Of many events
        only half are taken, so that the other lane has work while these are written.
        """
        while self._waiting_events < max(1, min(self._under_way, ENOUGH)):
            if self._stopping and not self._waiting:
                return []
            self._stirred.clear()
            await self._stirred.wait()
        most = min(BATCH_LIMIT, max(FEW, (self._waiting_events + self._under_way + 1) // 2))
        events = size = taken = 0
        for request in self._waiting:
            events += len(request.events)
            size += request.size
            if taken and (events > most or size > BATCH_BYTES):
                events -= len(request.events)
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        self._waiting_events -= events
        self._under_way += events
        return batch

    async def _fates(self, batch: list[Request]) -> list[list[int] | CalltrailError]:
        """Write `batch`, which is under way until then, and return its fates."""
        try:
            return await self._write(batch)
        except CalltrailError as error:
            return [error] * len(batch)
        except Exception as error:
            logger.exception("append failed")
            return [OutcomeUnknown(f"the append failed unexpectedly: {error!r}")] * len(batch)
        finally:
            self._under_way -= sum(len(request.events) for request in batch)
            if self._waiting:
                self._stirred.set()

    async def _write(self, batch: list[Request]) -> list[list[int] | CalltrailError]:
        """Write `batch` and return its fates; while the database is away, try for KEEP_TRYING_S."""
        rows = await self._pack(batch)
        deadline = asyncio.get_running_loop().time() + KEEP_TRYING_S
        in_doubt = thorough = False
        for attempt in itertools.count():
            transaction = Transaction(batch, rows, self._codecs, self._clock, thorough=thorough)
            try:
                await self._attempt(transaction)
            except AlreadyThere:
                thorough = True
            except DatabaseError as error:
                in_doubt |= transaction.committing
                thorough |= in_doubt
                last_chance = asyncio.get_running_loop().time() > deadline
                if last_chance or not isinstance(error, DatabaseUnavailable):
                    if in_doubt:
                        raise OutcomeUnknown(f"the answer to a commit was lost: {error}") from error
                    raise
                logger.warning("append is tried again", extra={"attempt": attempt, "fault": str(error)})
                await asyncio.sleep(min(1.0, 0.02 * 2**attempt))
            else:
                break
        await self._learn(transaction.state)
        self._note_step(transaction.stepped)
        return transaction.fates

    async def _pack(self, batch: list[Request]) -> list[Row]:
        """Do what needs neither a lock nor a place in the log."""
        events = [event for request in batch for event in request.events]
        codec = self._state.codec
        pack = self._codecs[codec].pack if codec != AS_IS else keep
        rows = pack_events(events[:BREATH], pack)
        for at in range(BREATH, len(events), BREATH):
            await asyncio.sleep(0)
            rows += pack_events(events[at : at + BREATH], pack)
        return rows

    async def _attempt(self, transaction: Transaction) -> None:
        with database_errors():
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                await self._run(transaction, connection)
            except AlreadyThere:
                self._idle.append(connection)
                raise
            except BaseException:
                connection.terminate()
                raise
            self._idle.append(connection)

    async def _run(self, transaction: Transaction, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Write what can be drafted; else look, while no other lane goes on from what is known here."""
        async with self._turn:
            drafted = transaction.draft(self._state)
            if drafted:
                self._state = transaction.state
        if drafted:
            if await transaction.write(connection):
                self._written = max(self._written, transaction.state.tree, key=attrgetter("size"))
                return
            self._clock.forget()
        async with self._turn:
            await transaction.look_and_write(connection, self._state, self._written)
            self._state = transaction.state
            self._written = transaction.state.tree

    async def _learn(self, state: State) -> None:
        """Note how far the log reaches. Payloads are packed with its codec once its dictionary is read."""
        self._watch.advance(state.tree.size)
        if self._codecs.missing([state.codec]):
            with suppress(DatabaseError), database_errors():
                await self._codecs.load(self._database.pool)
        if not self._codecs.missing([state.codec]):
            self._state = self._state._replace(codec=state.codec)

    def _note_step(self, stepped: NewEvent | None) -> None:
        """Record, once, that the clock was set back."""
        if stepped is not None and stepped.event_id != self._stepped:
            self._stepped = stepped.event_id
            request = Request([stepped], (), (), len(stepped.payload))
            request.positions.add_done_callback(asyncio.Future.exception)  # another process may be first
            self._waiting.append(request)
            self._waiting_events += 1
            self._stirred.set()

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        connection = await self._database.connect()
        await connection.execute(
            f"SET lock_timeout = {LOCK_TIMEOUT_MS}; SET idle_in_transaction_session_timeout = '60s'"
        )
        return connection


def keep(payload: bytes) -> tuple[int, bytes]:
    """A payload as it is: before the log's dictionary is known."""
    return AS_IS, payload
