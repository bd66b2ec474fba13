"""Folding events into one generation of one projection.

A `Folder` remembers the rows that it has touched lately, so that most events need no look into the table.
What it has not yet written is written by `flush`, in the caller's transaction; when that transaction fails,
the memory is wrong and the folder has to `forget`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from service.projections.memory import Ages, Bloom
from service.projections.projection import Key, Projection, Recorded, Row
from service.projections.tables import Connection, ProjectionTable

logger = logging.getLogger(__name__)

Owns = Callable[[str], bool]


class Held:
    """A row in memory: since which position it is so, and whether it stands in the table already."""

    __slots__ = ("row", "since", "stored")

    def __init__(self, row: Row, since: int, *, stored: bool) -> None:
        self.row = row
        self.since = since
        self.stored = stored


class SetAside(NamedTuple):
    """An event that a projection could not digest, and why."""

    name: str
    position: int
    reason: str


class Folder:
    """Folds into `generation`. `fresh`: its table is empty, and nobody else writes these keys.

    `owns` tells, of an event that belongs to no call, whether a key (by its first part) is ours.
    """

    def __init__(
        self, projection: Projection, generation: int, *, fresh: bool = False, owns: Owns | None = None
    ) -> None:
        self.projection = projection
        self.generation = generation
        self.set_aside: list[SetAside] = []
        self._table = ProjectionTable(projection, generation)
        self._owns = owns
        self._written = Bloom() if fresh else None
        self._ages: Ages[Held] = Ages()
        self._unwritten: dict[Key, Held] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._closings: list[tuple[Key, int, int]] = []

    def forget(self) -> None:
        """Know nothing any more: what was folded since the last flush was not committed."""
        self._ages = Ages()
        self._written = None
        self._unwritten, self._rows, self._closings, self.set_aside = {}, [], [], []

    async def fold(self, connection: Connection, batch: Sequence[Recorded]) -> None:
        """Fold `batch`, which follows what was folded before. An event that a fold refuses is set aside."""
        projection, owns = self.projection, self._owns
        kinds, sweeping, keys_of = projection.kinds, projection.sweeping, projection.keys
        concerned: list[tuple[Recorded, tuple[Key, ...]]] = []
        for recorded in batch:
            if recorded.kind not in kinds:
                continue
            try:
                keys = keys_of(recorded)
                sweep = projection.sweep(recorded) if recorded.kind in sweeping else None
            except Exception as error:  # noqa: BLE001 whatever a fold raises, the others go on
                self._refuse(recorded, error)
                continue
            if owns is not None:
                keys = self._ours(recorded, keys)
            if sweep is not None:
                await self._fold_concerned(connection, concerned)
                concerned = []
                await self.flush(connection)
                found = await self._table.keys_where(connection, sweep)
                keys = tuple(dict.fromkeys((*keys, *self._ours(recorded, found))))
            if keys:
                concerned.append((recorded, keys))
        await self._fold_concerned(connection, concerned)

    async def _fold_concerned(
        self, connection: Connection, concerned: Sequence[tuple[Recorded, tuple[Key, ...]]]
    ) -> None:
        await self._recall(connection, {key for _, keys in concerned for key in keys})
        fold, held_of, change = self.projection.fold, self._ages.get, self._change
        for recorded, keys in concerned:
            changed: list[tuple[Key, Held | None, Row]] = []
            try:
                for key in keys:
                    held = held_of(key)
                    before = held.row if held is not None else None
                    after = fold(key, before, recorded)
                    if after is not before and after is not None:
                        changed.append((key, held, after))
            except Exception as error:  # noqa: BLE001 whatever a fold raises, the others go on
                self._refuse(recorded, error)
                continue
            for key, held, after in changed:
                change(key, held, after, recorded.position)

    def _ours(self, recorded: Recorded, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        owns = self._owns
        if owns is None or not keys or recorded.stream.startswith(("call-", "transfer-")):
            return keys
        return tuple(key for key in keys if owns(str(key[0])))

    def _refuse(self, recorded: Recorded, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:500]
        logger.warning(
            "an event is set aside",
            extra={"projection": self.projection.name, "position": recorded.position, "reason": reason},
        )
        self.set_aside.append(SetAside(self.projection.name, recorded.position, reason))

    async def _recall(self, connection: Connection, keys: set[Key]) -> None:
        """Bring into memory the rows of those keys that are not in it and may be in the table."""
        unknown = [key for key in keys if self._ages.get(key) is None]
        if self._written is not None:
            unknown = [key for key in unknown if key in self._written]
        if unknown:
            for key, since, row in await self._table.current(connection, unknown):
                self._ages.put(key, Held(row, since, stored=True))

    def _change(self, key: Key, held: Held | None, after: Row, position: int) -> None:
        if not self.projection.versioned:
            held = Held(after, position, stored=held is not None and held.stored)
        else:
            if held is not None:
                if held.stored:
                    self._closings.append((key, held.since, position))
                else:
                    self._rows.append(self._table.record(held.row, held.since, position))
            held = Held(after, position, stored=False)
        self._ages.put(key, held)
        self._unwritten[key] = held

    async def spill(self, connection: Connection) -> None:
        """Write what cannot change any more."""
        rows, self._rows = self._rows, []
        if rows:
            await self._table.copy(connection, rows)

    async def flush(self, connection: Connection) -> None:
        """Write all changes."""
        table = self._table
        if self._closings:
            await table.close(connection, self._closings)
        if not self.projection.versioned:
            replaced = [key for key, held in self._unwritten.items() if held.stored]
            if replaced:
                await table.delete(connection, replaced)
            await table.unfold(connection, [held.row for held in self._unwritten.values()], replaced)
        rows = self._rows
        rows += [table.record(held.row, held.since, None) for held in self._unwritten.values()]
        if rows:
            await table.copy(connection, rows)
        for key, held in self._unwritten.items():
            held.stored = True
            if self._written is not None:
                self._written.add(key)
        self._unwritten, self._rows, self._closings = {}, [], []
        self._ages.grow_old()
