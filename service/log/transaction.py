"""One transaction of the log: a batch of requests, all or nothing, in as few round trips as can be.

An appender that knows where the log ends drafts what it will write, positions, time, leaves and tree, before
it asks for any lock. One statement then locks the head, sees that the log ends where the draft takes it to
end and that the conditions hold, writes, and commits: one round trip, and the lock is held across none.

Where that does not do, the transaction looks first: it locks the head, looks up what must be known, decides
each request's fate and drafts under the lock. So it is for the first batch, after another process has
written, at a partition's end, when a condition is broken, and for ids that may be in the log.

No look-up tells whether an id is there already: within a partition the unique index refuses it, and then the
batch is done again, thorough this time (`AlreadyThere`); older partitions are searched for those ids only
that are not above everything in them, which the ids of a new producer always are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import UUID

import asyncpg

from service.errors import AppendConflict, CalltrailError, DatabaseUnavailable, EventIdReused, Tampered
from service.log import sql
from service.log.clock import DatabaseClock, clock_stepped
from service.log.codec import Codecs
from service.log.event import Condition, NewEvent, Row, Statement, rows_argument
from service.log.tree import StoredTile, Tree, fits, moment_text, tree_at
from service.tlog.entry import encode_entry
from service.tlog.merkle import leaf_hashes

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOG_TABLES = ("event_log", "log_tile")  # what their names, and those of their partitions, begin with


class Asked(Protocol):
    """A request as a transaction sees it."""

    @property
    def events(self) -> Sequence[NewEvent]: ...
    @property
    def conditions(self) -> Sequence[Condition]: ...
    @property
    def also(self) -> Sequence[Statement]: ...


class Partitions(NamedTuple):
    """Where the newest partition ends, and of each older one its beginning and its highest id."""

    end: int = 0
    older: Sequence[tuple[int, UUID]] = ()
    begin: int = 0

    def suspects(self, events: Iterable[NewEvent]) -> tuple[int, list[UUID]]:
        """The ids that an older partition may hold, and the position from which to look for them."""
        if not self.older:
            return self.begin, []
        highest = max(highest for _, highest in self.older)
        suspected = [event.event_id for event in events if event.event_id <= highest]
        if not suspected:
            return self.begin, []
        lowest = min(suspected)
        return min(first for first, highest in self.older if highest >= lowest), suspected


class State(NamedTuple):
    """What an appender takes the log to be from one transaction to the next; the head has the last word."""

    tree: Tree = Tree()
    partitions: Partitions = Partitions()
    codec: int = 0
    recorded_at: datetime = EPOCH
    alone: bool = False
    """Nobody else has written lately, so that a draft is worth its while."""


class Draft(NamedTuple):
    """What will be written: the arguments of `sql.APPEND`, and the tree when they are in."""

    arguments: tuple[Any, ...]
    tree: Tree


class AlreadyThere(CalltrailError):
    """An id of the batch is in the log: it must be written anew with `thorough`."""


class Transaction:
    """One attempt to write a batch, whose events have been packed into `rows`.

    Afterwards: `fates`, one for each request, and the new `state`; where it failed, `committing` tells that
    it may have been committed all the same. `stepped` is to be recorded: the clock was found behind the log.
    """

    def __init__(
        self,
        batch: Sequence[Asked],
        rows: Sequence[Row],
        codecs: Codecs,
        clock: DatabaseClock,
        *,
        thorough: bool,
    ) -> None:
        self.fates: list[list[int] | CalltrailError] = []
        self.state = State()
        self.committing = False
        self.stepped: NewEvent | None = None
        self._batch = batch
        self._events = [event for asked in batch for event in asked.events]
        self._rows = rows
        self._codecs = codecs
        self._clock = clock
        self._thorough = thorough
        self._draft: Draft | None = None

    def draft(self, state: State) -> bool:
        """Draft what to write if the log stands as `state` says. False: one must look first."""
        now = self._clock.now()
        begin, end = state.tree.size, state.tree.size + len(self._events)
        if self._thorough or not state.alone or now is None:
            return False
        if not state.partitions.begin <= begin < end <= state.partitions.end:
            return False
        if state.partitions.suspects(self._events)[1]:
            return False
        rows, also = self._decide(begin, {}, {})
        if any(isinstance(fate, CalltrailError) for fate in self.fates):
            return False
        moment = max(now, state.recorded_at)
        conditions = [condition for asked in self._batch for condition in asked.conditions]
        self._draft = draft_rows(rows, state.tree, moment, conditions, also)
        self.state = state._replace(tree=self._draft.tree, recorded_at=moment)
        return True

    async def write(self, connection: Connection) -> bool:
        """Write what was drafted. False: nothing was written, the log is not where it was taken to be.

        Raises:
            AlreadyThere: see there.

        """
        assert self._draft is not None
        with self._in_doubt():
            return await self._append(connection, self._draft)

    async def look_and_write(self, connection: Connection, state: State, written: Tree) -> None:
        """Lock the head, look, and write the batch, or as much of it as may be written.

        `written` is the tree as this process knows that it was; what `state` says of it is a supposition.

        Raises:
            AlreadyThere: see there.
            Tampered: the end of the log is not what the tree says; nothing is written after it.

        """
        async with begun(connection):
            head = await connection.fetchrow(sql.LOCK_HEAD)
            assert head is not None
            self._clock.hear(head["now"])
            if head["now"] < head["recorded_at"]:
                self.stepped = clock_stepped(head["now"], head["recorded_at"])
            first: int = head["next_position"]
            alone = fits(written, first, head["tree"])
            tree = await tree_at(connection, written, first, head["tree"])
            partitions = await find_partitions(connection, state.partitions, first)
            broken = await self._broken_conditions(connection)
            thorough = self._thorough or first + len(self._events) > partitions.end or bool(broken)
            known = await self._known(connection, partitions, thorough=thorough)
            rows, also = self._decide(first, known, broken)
            self.state = State(tree, partitions, head["codec"], head["recorded_at"], alone)
            if not rows:
                await connection.execute("ROLLBACK")
                return
            end = first + len(rows)
            if end > partitions.end:
                await ensure_partitions(connection, partitions.end, end)
                partitions = Partitions()  # what is the highest id of the one left is known after this
            moment = max(head["now"], head["recorded_at"])
            draft = draft_rows(rows, tree, moment, (), also)
            try:
                fitted = await self._append(connection, draft)
            except AlreadyThere as error:
                if thorough:
                    raise Tampered(f"there are events beyond the log's end: {error}") from error
                raise
            if not fitted:
                raise DatabaseUnavailable("the database's clock was set back just now")
            with self._in_doubt():
                await connection.execute("COMMIT")
            codec = self.state.codec
            self.state = State(draft.tree, partitions, codec, moment, alone)

    async def _append(self, connection: Connection, draft: Draft) -> bool:
        try:
            row = await connection.fetchrow(sql.APPEND, *draft.arguments)
        except asyncpg.UniqueViolationError as error:
            if not (error.table_name or "").startswith(LOG_TABLES):
                raise
            raise AlreadyThere(str(error)) from error
        assert row is not None
        self._clock.hear(row["now"])
        self.state = self.state._replace(codec=row["codec_in_use"])
        written: bool = row["written"]
        return written

    @contextmanager
    def _in_doubt(self) -> Iterator[None]:
        """In here the batch may be committed and we not hear of it. An error that Postgres tells is clear."""
        self.committing = True
        try:
            yield
        except asyncpg.PostgresError as error:
            self.committing = error.severity_en != "ERROR"
            raise
        except AlreadyThere:
            self.committing = False
            raise

    async def _broken_conditions(self, connection: Connection) -> dict[tuple[str, int], int]:
        conditions = {condition for asked in self._batch for condition in asked.conditions}
        if not conditions:
            return {}
        streams, afters = zip(*conditions, strict=True)
        found = await connection.fetch(sql.FIND_BEYOND, streams, afters)
        return {(row["stream"], row["after"]): row["found"] for row in found if row["found"] is not None}

    async def _known(
        self, connection: Connection, partitions: Partitions, *, thorough: bool
    ) -> dict[UUID, KnownEvent]:
        """Those events of the batch that are in the log, as far as one must know before writing."""
        begin, suspected = 0, [event.event_id for event in self._events]
        if not thorough:
            begin, suspected = partitions.suspects(self._events)
        if not suspected:
            return {}
        end = (1 << 63) - 1 if thorough else partitions.begin
        found = await connection.fetch(sql.FIND_IDS, suspected, begin, end)
        if self._codecs.missing(row["codec"] for row in found):
            await self._codecs.load(connection)
        return {row["event_id"]: known_event(row, self._codecs) for row in found}

    def _decide(
        self, first: int, known: dict[UUID, KnownEvent], broken: dict[tuple[str, int], int]
    ) -> tuple[Sequence[Row], list[Sequence[Statement]]]:
        """Decide each request's fate in the order of arrival; an earlier one counts for a later one.

        Returns the rows to write, and the statements of the requests that write any.
        """
        self.fates = []
        conditional = any(asked.conditions for asked in self._batch)
        if known or conditional or len({event.event_id.int for event in self._events}) < len(self._events):
            return self._decide_each(first, known, broken)
        for asked in self._batch:
            end = first + len(asked.events)
            self.fates.append(list(range(first, end)))
            first = end
        return self._rows, [asked.also for asked in self._batch if asked.also]

    def _decide_each(
        self, first: int, known: dict[UUID, KnownEvent], broken: dict[tuple[str, int], int]
    ) -> tuple[list[Row], list[Sequence[Statement]]]:
        rows: list[Row] = []
        also: list[Sequence[Statement]] = []
        newest: dict[str, int] = {}
        packed = iter(self._rows)
        for asked in self._batch:
            own = [next(packed) for _ in asked.events]
            fresh = [row for row in own if row[0] not in known]
            refused = find_reused(asked, known)
            if refused is None and fresh and asked.conditions:
                refused = find_conflict(asked, broken, newest)
            if refused is not None:
                self.fates.append(refused)
                continue
            for event, row in zip(asked.events, own, strict=True):
                if event.event_id not in known:
                    position = first + len(rows)
                    known[event.event_id] = KnownEvent(position, event.stream, event.kind, event.payload)
                    newest[event.stream] = position
                    rows.append(row)
            if fresh and asked.also:
                also.append(asked.also)
            self.fates.append([known[event.event_id].position for event in asked.events])
        return rows, also


def draft_rows(
    rows: Sequence[Row],
    tree: Tree,
    moment: datetime,
    conditions: Iterable[Condition],
    also: Iterable[Sequence[Statement]],
) -> Draft:
    """What is to be written for `rows` to stand at the end of `tree`, all of them recorded at `moment`."""
    event_ids, codecs, streams, kinds, salts, commitments, payloads = zip(*rows, strict=True)
    text = moment_text(moment)
    entries = [
        encode_entry(position, event_id, stream, kind, text, commitment)
        for position, (event_id, _, stream, kind, _, commitment, _) in enumerate(rows, tree.size)
    ]
    grown, tiles = tree.grow(leaf_hashes(entries))
    arguments = (
        *(tree.size, tree.frontier.hashes, grown.frontier.hashes, moment),
        *(event_ids, codecs, streams, kinds, salts, commitments, payloads),
        *columns(tiles, StoredTile),
        *columns(conditions, Condition),
        *together(also),
    )
    return Draft(arguments, grown)


def columns(rows: Iterable[tuple[Any, ...]], kind: type[NamedTuple]) -> list[tuple[Any, ...]]:
    """The columns of rows, of which there may be none."""
    return list(zip(*rows, strict=True)) or [()] * len(kind._fields)


@asynccontextmanager
async def begun(connection: Connection) -> AsyncIterator[None]:
    """A transaction that its body ends; rolled back after an error that the connection outlives."""
    await connection.execute("BEGIN")
    try:
        yield
    except AlreadyThere:
        await connection.execute("ROLLBACK")
        raise


async def find_partitions(connection: Connection, known: Partitions, position: int) -> Partitions:
    """The partition that takes `position`, and those before it; `known` if that is still right."""
    if known.begin <= position < known.end:
        return known
    return await ensure_partitions(connection, position, position + 1)


async def ensure_partitions(connection: Connection, start: int, end: int) -> Partitions:
    """Make the partitions of [start, end) that are missing, and say what there is."""
    made = start
    while made < end:
        made, size = await connection.fetchrow(sql.ENSURE_PARTITION, made)  # type: ignore[misc]  # always a row
    older = await connection.fetch(sql.OLDER_PARTITIONS, made)
    return Partitions(
        made,
        [(row["first_position"], row["highest_id"]) for row in older if row["highest_id"] is not None],
        made - size,
    )


def together(also: Iterable[Sequence[Statement]]) -> tuple[list[str], list[str]]:
    """Each request's statements in their order, the first ones of all requests together, and so on."""
    statements: list[str] = []
    arguments: list[str] = []
    for turn in zip_longest(*also):
        rows: dict[str, list[Mapping[str, object]]] = {}
        for statement in filter(None, turn):
            rows.setdefault(statement.sql, []).append(statement.row)
        statements += rows
        arguments += map(rows_argument, rows.values())
    return statements, arguments


class KnownEvent(NamedTuple):
    """What is known of an id: where it stands and what was written under it (None: redacted)."""

    position: int
    stream: str
    kind: str
    payload: bytes | None

    def is_same(self, event: NewEvent) -> bool:
        same_payload = self.payload is None or self.payload == event.payload
        return same_payload and self.stream == event.stream and self.kind == event.kind


def known_event(row: asyncpg.Record, codecs: Codecs) -> KnownEvent:
    payload = None if row["redacted"] else codecs.decode(row["codec"], row["payload"])
    return KnownEvent(row["position"], row["stream"], row["kind"], payload)


def find_reused(asked: Asked, known: dict[UUID, KnownEvent]) -> CalltrailError | None:
    for event in asked.events:
        there = known.get(event.event_id)
        if there is not None and not there.is_same(event):
            return EventIdReused(event.event_id, there.position)
    return None


def find_conflict(
    asked: Asked, broken: dict[tuple[str, int], int], newest: dict[str, int]
) -> CalltrailError | None:
    for condition in asked.conditions:
        found = newest.get(condition.stream, broken.get(condition))
        if found is not None and found > condition.after:
            return AppendConflict(condition.stream, condition.after, found)
    return None
