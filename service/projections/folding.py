"""Folding events into one generation of one projection.

A `Folder` remembers the rows that it has touched lately, so that most events need no look into the table.
What it has not yet written is written by `flush`, in the caller's transaction; when that transaction fails,
what the folder remembers is wrong, and another has to take its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from service.log import EventLog
from service.projections import sql
from service.projections.memory import Ages, Bloom
from service.projections.projection import Key, Projection, Recorded, Row
from service.projections.reading import Page, describe_fault, slices
from service.projections.recalling import Recalled, Recalling
from service.projections.tables import Connection, ProjectionTable

logger = logging.getLogger(__name__)

Owns = Callable[[str], bool]
OF_A_CALL = ("call-", "transfer-")
"""How the streams begin that one share has for itself."""
Concerned = tuple[Recorded, tuple[Key, ...]]


class Held:
    """A row (or what the fold knows of it) in memory.

    `since`: the position at which it came to be so; `stored`: the table has a current row of this key.
    """

    __slots__ = ("row", "since", "stored", "unfolded")

    def __init__(self, row: Any, since: int, *, stored: bool, unfolded: bool = False) -> None:
        self.row = row
        self.since = since
        self.stored = stored
        self.unfolded = unfolded
        """Whether the table of parts has some of this row."""


Changed = tuple[Key, Held | None, Any]


class SetAside(NamedTuple):
    """An event that a projection could not digest, and why."""

    position: int
    reason: str


class Folder:
    """Folds into `generation`. `fresh`: its table is empty, and nobody else writes these keys.

    `owns` tells, of an event that belongs to no call, whether a key (by its first part) is ours.
    """

    def __init__(
        self,
        projection: Projection,
        generation: int,
        log: EventLog,
        *,
        fresh: bool = False,
        owns: Owns | None = None,
    ) -> None:
        self.projection = projection
        self._recalling = projection if isinstance(projection, Recalling) else None
        self._recalled = Recalled(projection, generation, log) if isinstance(projection, Recalling) else None
        self.generation = generation
        self._set_aside: list[SetAside] = []
        self._table = ProjectionTable(projection, generation)
        self._owns = owns
        self._written = Bloom() if fresh else None
        self._ages: Ages[Held] = Ages()
        self._unwritten: dict[Key, Held] = {}
        self._rows: list[tuple[Any, ...]] = []  # closed intervals, to be written
        self._closings: list[tuple[Key, int, int]] = []

    def forget(self) -> None:
        """Know no row any more: others have changed the table. All has been written before."""
        self._written, self._ages = None, Ages()

    async def advance(self, connection: Connection, page: Page) -> None:
        """Fold `page` and write all of it: rows, events set aside, and how far the generation has come."""
        await self.fold(connection, page)
        await self.flush(connection)
        await connection.execute(sql.MOVE, self.projection.name, self.generation, page.upto)

    async def fold(self, connection: Connection, page: Page) -> None:
        """Fold `page`, which follows what was folded before. An event that a fold refuses is set aside."""
        projection = self.projection
        kinds, sweeping, keys_of, owns = projection.kinds, projection.sweeping, projection.keys, self._owns
        find, may_be_stored = self._ages.find, self._may_be_stored
        self._set_aside += [
            SetAside(one.position, one.reason) for one in page.unread if one.kind is None or one.kind in kinds
        ]
        concerned: list[Concerned] = []
        unknown: set[Key] = set()
        for recorded in page.events:
            if recorded.kind not in kinds:
                continue
            try:
                keys = keys_of(recorded)
                sweep = projection.sweep(recorded) if recorded.kind in sweeping else None
            except Exception as error:  # noqa: BLE001 whatever a fold raises, the others go on
                self._refuse(recorded, error)
                continue
            if sweep is not None:
                await self._recall(connection, unknown, page.after)
                await self._fold_concerned(concerned)
                concerned, unknown = [], set()
                await self.flush(connection)
                keys = tuple(dict.fromkeys((*keys, *await self._table.keys_where(connection, sweep))))
            if owns is not None and not recorded.stream.startswith(OF_A_CALL):
                keys = tuple(key for key in keys if owns(str(key[0])))
            if keys:
                concerned.append((recorded, keys))
                for key in keys:
                    if find(key) is None and may_be_stored(key):
                        unknown.add(key)
        await self._recall(connection, unknown, page.after)
        await self._fold_concerned(concerned)

    def _may_be_stored(self, key: Key) -> bool:
        """Whether the table may have a row of `key`, which is not in memory."""
        return self._written is None or key in self._written

    async def _fold_concerned(self, concerned: Sequence[Concerned]) -> None:
        for some in slices(concerned):
            self._fold_known(some)
            await asyncio.sleep(0)

    def _fold_known(self, concerned: Sequence[Concerned]) -> None:
        """Fold events all of whose rows are in memory."""
        fold, held_of, change = self.projection.fold, self._ages.young.get, self._change
        for recorded, keys in concerned:
            try:
                if len(keys) > 1:
                    changed = self._fold_all(recorded, keys)
                else:
                    key = keys[0]
                    held = held_of(key)
                    before = held.row if held is not None else None
                    after = fold(key, before, recorded)
                    changed = () if after is before or after is None else ((key, held, after),)
            except Exception as error:  # noqa: BLE001 whatever a fold raises, the others go on
                self._refuse(recorded, error)
                continue
            for key, held, after in changed:
                change(key, held, after, recorded.position)

    def _fold_all(self, recorded: Recorded, keys: Sequence[Key]) -> Sequence[Changed]:
        """The rows that an event changes, none of them if one cannot be folded."""
        changed = []
        for key in keys:
            held = self._ages.young.get(key)
            before = held.row if held is not None else None
            after = self.projection.fold(key, before, recorded)
            if after is not before and after is not None:
                changed.append((key, held, after))
        return changed

    def _refuse(self, recorded: Recorded, error: Exception) -> None:
        reason = describe_fault(error)
        logger.warning(
            "an event is set aside",
            extra={"projection": self.projection.name, "position": recorded.position, "reason": reason},
        )
        self._set_aside.append(SetAside(recorded.position, reason))

    async def _recall(self, connection: Connection, unknown: Collection[Key], after: int) -> None:
        """Bring into memory rows that are not in it and may be in the table, as of position `after`."""
        young = self._ages.young
        if unknown and self._recalled is not None:
            refused = {one.position for one in self._set_aside}
            for key, known in (await self._recalled.known(connection, unknown, after, refused)).items():
                unfolded = bool(self._table.parts(self._row_of(key, known)))
                young[key] = Held(known, after, stored=True, unfolded=unfolded)
        elif unknown:
            for key, since, row in await self._table.current(connection, list(unknown)):
                young[key] = Held(row, since, stored=True)

    def _change(self, key: Key, held: Held | None, after: Any, position: int) -> None:
        if held is None:
            held = self._ages.young[key] = Held(after, position, stored=False)
        else:
            if self.projection.versioned:
                if held.stored:
                    self._closings.append((key, held.since, position))
                else:
                    self._rows.append(self._table.record(held.row, held.since, position))
                held.stored = False
            elif self._recalling is not None and self._recalling.reads_the_same(held.row, after):
                held.row = after  # what is kept in memory alone has changed
                return
            held.row, held.since = after, position
        self._unwritten[key] = held

    async def spill(self, connection: Connection) -> None:
        """Write what cannot change any more, and what has not changed for long, and forget it."""
        if self._ages.full:
            leaving = {key: held for key in self._ages.old if (held := self._unwritten.pop(key, None))}
            await self._write(connection, leaving)
            self._ages.grow_old()
        elif self._rows:
            rows, self._rows = self._rows, []
            await self._table.copy(connection, rows)

    async def flush(self, connection: Connection) -> None:
        """Write all changes, and what was set aside."""
        unwritten, self._unwritten = self._unwritten, {}
        await self._write(connection, unwritten)
        if self._set_aside:
            await connection.executemany(
                sql.SET_ASIDE, [(self.projection.name, self.generation, *one) for one in self._set_aside]
            )
            self._set_aside = []
        if self._ages.full:
            self._ages.grow_old()

    async def _write(self, connection: Connection, current: Mapping[Key, Held]) -> None:
        """Write what is closed, and these rows, which are as they are now."""
        table = self._table
        if self._closings:
            await table.close(connection, self._closings)
        if not self.projection.versioned:
            replaced = [key for key, held in current.items() if held.stored]
            if replaced:
                await table.delete(connection, replaced)
        shown = [(held, self._row_of(key, held.row)) for key, held in current.items()]
        if table.has_parts:
            await self._unfold(connection, shown)
        rows = self._rows + [table.record(row, held.since, None) for held, row in shown]
        if rows:
            await table.copy(connection, rows)
        for key, held in current.items():
            held.stored = True
            if self._written is not None:
                self._written.add(key)
        self._rows, self._closings = [], []

    def _row_of(self, key: Key, held: Any) -> Row:
        """The row of what the fold has come to."""
        row: Row = held if self._recalling is None else self._recalling.row(key, held)
        return row

    async def _unfold(self, connection: Connection, shown: Sequence[tuple[Held, Row]]) -> None:
        """Write the parts of these rows in place of those that were written before."""
        replaced, parts = [], []
        for held, row in shown:
            of_row = self._table.parts(row)
            if held.unfolded:
                replaced.append(row[self.projection.key[0]])
            held.unfolded = bool(of_row)
            parts += of_row
        await self._table.unfold(connection, parts, replaced)
