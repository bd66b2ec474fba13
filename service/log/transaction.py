"""One transaction of the log: a batch of requests, all or nothing, in as few round trips as can be.

    BEGIN · lock the head · [conditions] · COPY · [statements of the requests] · move the head and COMMIT

Rows are encoded, hashed and sent piece by piece while Postgres takes in the pieces before. No look-up tells
whether an id is there already: within a partition the unique index refuses it, and then the batch is done
again, thorough this time (`AlreadyThere`); older partitions are searched for those ids only that are not
above everything in them, which the ids of a new producer always are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

import asyncpg

from service.errors import AppendConflict, CalltrailError, EventIdReused, Tampered
from service.log import sql
from service.log.clock import clock_stepped
from service.log.codec import Codecs
from service.log.copy import HEADER, TRAILER, encode_rows
from service.log.event import Condition, NewEvent, Statement
from service.log.tree import StoredTile, Tree, moment_text, tile_values, tree_at
from service.tlog.entry import join_entry
from service.tlog.merkle import leaf_hashes

PIECE = 256  # rows encoded and sent at a time


class Prepared(NamedTuple):
    """An event with what does not depend on its place in the log: its row, and its entry in two pieces."""

    event: NewEvent
    rest: bytes
    middle: bytes
    end: bytes


class Asked(Protocol):
    """A request as a transaction sees it."""

    @property
    def events(self) -> Sequence[Prepared]: ...
    @property
    def conditions(self) -> Sequence[Condition]: ...
    @property
    def also(self) -> Sequence[Statement]: ...


class Partitions(NamedTuple):
    """Where the newest partition ends, and of each older one its beginning and its highest id."""

    end: int = 0
    older: Sequence[tuple[int, UUID]] = ()
    begin: int = 0

    def suspects(self, ids: Iterable[UUID]) -> tuple[int, list[UUID]]:
        """The ids that an older partition may hold, and the position from which to look for them."""
        if not self.older:
            return self.begin, []
        highest = max(highest for _, highest in self.older)
        suspected = [event_id for event_id in ids if event_id <= highest]
        if not suspected:
            return self.begin, []
        lowest = min(suspected)
        return min(first for first, highest in self.older if highest >= lowest), suspected


class State(NamedTuple):
    """What an appender knows from one transaction to the next; a value, replaced only by a commit."""

    tree: Tree = Tree()
    partitions: Partitions = Partitions()
    codec: int = 0


class AlreadyThere(CalltrailError):
    """An id of the batch is in the log: it must be written anew with `thorough`."""


class Transaction:
    """One attempt to write a batch. After `run`: `fates`, one for each request, and the new `state`.

    `stepped` is to be recorded: the clock was found behind the log.
    """

    def __init__(self, batch: Sequence[Asked], state: State, codecs: Codecs, *, thorough: bool) -> None:
        self.fates: list[list[int] | CalltrailError] = []
        self.state = state
        self.committing = False
        self.stepped: NewEvent | None = None
        self._batch = batch
        self._codecs = codecs
        self._thorough = thorough

    async def run(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Write the batch, or as much of it as may be written.

        Raises:
            AlreadyThere: see there; the transaction is rolled back.
            Tampered: the end of the log is not what the tree says; nothing is written after it.

        """
        await connection.execute("BEGIN")
        head = await connection.fetchrow(sql.LOCK_HEAD)
        assert head is not None
        next_position: int = head["next_position"]
        tree = await tree_at(connection, self.state.tree, next_position, head["tree"])
        partitions = await self._partitions(connection, next_position)
        broken = await self._broken_conditions(connection)
        count = sum(len(asked.events) for asked in self._batch)
        straddles = next_position + count > partitions.end
        thorough = self._thorough or straddles or bool(broken)
        known = await self._known(connection, partitions, thorough=thorough)
        recorded_at = max(head["now"], head["recorded_at"])
        if recorded_at > head["now"]:
            self.stepped = clock_stepped(head["now"], recorded_at)
        rows, also = self._plan(next_position, known, broken)
        self.state = State(tree, partitions, head["codec"])
        if not rows:
            await connection.execute("ROLLBACK")
            return
        end = next_position + len(rows)
        if end > partitions.end:
            await ensure_partitions(connection, partitions.end, end)
            partitions = Partitions()  # what is the highest id of the one left is known after this
        sending = Sending(rows, recorded_at, tree)
        try:
            await sending.run(connection)
        except asyncpg.UniqueViolationError as error:
            await connection.execute("ROLLBACK")
            if thorough:
                raise Tampered(f"there are events beyond the log's end: {error}") from error
            raise AlreadyThere("an id is in the log") from error
        await run_statements(connection, also)
        finish = finishing(end, recorded_at, sending.tree, sending.tiles)
        self.committing = True
        await connection.execute(finish)
        self.state = State(sending.tree, partitions, head["codec"])

    async def _partitions(
        self, connection: asyncpg.Connection[asyncpg.Record], next_position: int
    ) -> Partitions:
        known = self.state.partitions
        if known.begin <= next_position < known.end:
            return known
        return await ensure_partitions(connection, next_position, next_position + 1)

    async def _broken_conditions(
        self, connection: asyncpg.Connection[asyncpg.Record]
    ) -> dict[tuple[str, int], int]:
        conditions = {condition for asked in self._batch for condition in asked.conditions}
        if not conditions:
            return {}
        streams, afters = zip(*conditions, strict=True)
        found = await connection.fetch(sql.FIND_BEYOND, streams, afters)
        return {(row["stream"], row["after"]): row["found"] for row in found if row["found"] is not None}

    async def _known(
        self, connection: asyncpg.Connection[asyncpg.Record], partitions: Partitions, *, thorough: bool
    ) -> dict[UUID, KnownEvent]:
        """Those events of the batch that are in the log, as far as one must know before writing."""
        if not thorough and not partitions.older:
            return {}
        ids = (prepared.event.event_id for asked in self._batch for prepared in asked.events)
        begin, suspected = (0, list(ids)) if thorough else partitions.suspects(ids)
        if not suspected:
            return {}
        end = (1 << 63) - 1 if thorough else partitions.begin
        found = await connection.fetch(sql.FIND_IDS, suspected, begin, end)
        if self._codecs.missing(row["codec"] for row in found):
            await self._codecs.load(connection)
        return {row["event_id"]: known_event(row, self._codecs) for row in found}

    def _plan(
        self, next_position: int, known: dict[UUID, KnownEvent], broken: dict[tuple[str, int], int]
    ) -> tuple[list[Prepared], list[Sequence[Statement]]]:
        """Decide each request's fate in the order of arrival; an earlier one counts for a later one."""
        also = [asked.also for asked in self._batch if asked.also]
        rows = [prepared for asked in self._batch for prepared in asked.events]
        conditional = any(asked.conditions for asked in self._batch)
        if known or conditional or len({prepared.event.event_id.int for prepared in rows}) < len(rows):
            return self._plan_each(next_position, known, broken)
        for asked in self._batch:
            end = next_position + len(asked.events)
            self.fates.append(list(range(next_position, end)))
            next_position = end
        return rows, also

    def _plan_each(
        self, next_position: int, known: dict[UUID, KnownEvent], broken: dict[tuple[str, int], int]
    ) -> tuple[list[Prepared], list[Sequence[Statement]]]:
        rows: list[Prepared] = []
        also: list[Sequence[Statement]] = []
        newest: dict[str, int] = {}
        for asked in self._batch:
            reused = find_reused(asked, known)
            fresh = [prepared for prepared in asked.events if prepared.event.event_id not in known]
            conflict = find_conflict(asked, broken, newest) if fresh and asked.conditions else None
            refused = reused or conflict
            if refused is not None:
                self.fates.append(refused)
                continue
            for prepared in fresh:
                event_id, stream, kind, payload = prepared.event
                if event_id in known:
                    continue  # twice in the same request
                rows.append(prepared)
                known[event_id] = KnownEvent(next_position, stream, kind, payload)
                newest[stream] = next_position
                next_position += 1
            if fresh and asked.also:
                also.append(asked.also)
            self.fates.append([known[prepared.event.event_id].position for prepared in asked.events])
        return rows, also


class Sending:
    """Rows on their way: placed and hashed piece by piece, while Postgres takes in the pieces before.

    Afterwards `tree` is the tree with them, and `tiles` those that became full.
    """

    def __init__(self, rows: Sequence[Prepared], recorded_at: datetime, tree: Tree) -> None:
        self.tree = tree
        self.tiles: list[StoredTile] = []
        self._rows = rows
        self._recorded_at = recorded_at

    async def run(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await connection.copy_to_table(
            "event_log", source=self._pieces(), columns=sql.COLUMNS, format="binary"
        )

    async def _pieces(self) -> AsyncIterator[bytes]:
        first, moment = self.tree.size, moment_text(self._recorded_at)
        leaves: list[bytes] = []
        before = HEADER
        for at in range(0, len(self._rows), PIECE):
            rows = self._rows[at : at + PIECE]
            yield before + encode_rows(first + at, self._recorded_at, [row.rest for row in rows])
            before = b""
            leaves.append(
                leaf_hashes(
                    [
                        join_entry(position, middle, moment, end)
                        for position, (_, _, middle, end) in enumerate(rows, first + at)
                    ]
                )
            )
        self.tree, self.tiles = self.tree.grow(b"".join(leaves))
        yield TRAILER


async def ensure_partitions(
    connection: asyncpg.Connection[asyncpg.Record], start: int, end: int
) -> Partitions:
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


async def run_statements(
    connection: asyncpg.Connection[asyncpg.Record], also: Sequence[Sequence[Statement]]
) -> None:
    """Run each request's statements in their order, the first ones of all requests together, and so on."""
    for turn in range(max(map(len, also), default=0)):
        by_sql: dict[str, list[tuple[object, ...]]] = {}
        for statements in also:
            if turn < len(statements):
                by_sql.setdefault(statements[turn].sql, []).append(statements[turn].arguments)
        for statement, arguments in by_sql.items():
            await connection.executemany(statement, arguments)


def finishing(end: int, recorded_at: datetime, tree: Tree, tiles: Sequence[StoredTile]) -> str:
    """Store the tiles, publish the new head (listeners hear of it then), commit; one round trip."""
    store = (
        f"INSERT INTO log_tile (level, index, root, hashes) VALUES {tile_values(tiles)}; "  # noqa: S608 digits
        if tiles
        else ""
    )
    return (
        f"{store}UPDATE log_head SET next_position = {end}, recorded_at = '{recorded_at.isoformat()}', "  # noqa: S608 digits
        f"tree = '\\x{tree.frontier.hashes.hex()}'; SELECT pg_notify('event_log', '{end}'); COMMIT"
    )


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


def find_reused(asked: Asked, known: dict[UUID, KnownEvent]) -> EventIdReused | None:
    for prepared in asked.events:
        there = known.get(prepared.event.event_id)
        if there is not None and not there.is_same(prepared.event):
            return EventIdReused(prepared.event.event_id, there.position)
    return None


def find_conflict(
    asked: Asked, broken: dict[tuple[str, int], int], newest: dict[str, int]
) -> AppendConflict | None:
    for condition in asked.conditions:
        found = newest.get(condition.stream, broken.get(condition))
        if found is not None and found > condition.after:
            return AppendConflict(condition.stream, condition.after, found)
    return None
