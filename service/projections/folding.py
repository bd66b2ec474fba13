"""Folding a batch of events into one generation of one projection, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from service.projections.projection import Key, Projection, Recorded, Row

KEYS_A_QUERY = 5_000


async def fold_batch(
    connection: AsyncConnection, projection: Projection, generation: int, batch: Sequence[Recorded]
) -> None:
    """Fold `batch`, which follows what this generation has folded already, and write the rows it changes."""
    concerned = [(recorded, projection.keys(recorded)) for recorded in batch if is_of(projection, recorded)]
    wanted = sorted({key for _, keys in concerned for key in keys}, key=repr)
    if not wanted:
        return
    rows = await current_rows(connection, projection, generation, wanted)
    changes = Changes(projection, generation, rows)
    for recorded, keys in concerned:
        for key in keys:
            before = rows.get(key)
            after = projection.fold(key, before, recorded)
            if after is not before and after is not None:
                rows[key] = changes.note(key, before, after, recorded.position)
    await changes.write(connection)


def is_of(projection: Projection, recorded: Recorded) -> bool:
    return recorded.event.kind() in projection.kinds


async def current_rows(
    connection: AsyncConnection, projection: Projection, generation: int, keys: Sequence[Key]
) -> dict[Key, Row]:
    """The rows of `keys` as they stand: of a versioned projection, those that are still open."""
    table = projection.table
    columns = sa.tuple_(*(table.c[name] for name in projection.key))
    rows: dict[Key, Row] = {}
    for start in range(0, len(keys), KEYS_A_QUERY):
        query = sa.select(table).where(
            table.c.generation == generation, columns.in_(keys[start : start + KEYS_A_QUERY])
        )
        if projection.versioned:
            query = query.where(table.c.to_position.is_(None))
        for row in (await connection.execute(query)).mappings():
            rows[tuple(row[name] for name in projection.key)] = dict(row)
    return rows


class Changes:
    """What a batch changes: rows to insert or replace, and old intervals to close."""

    def __init__(self, projection: Projection, generation: int, stored: Mapping[Key, Row]) -> None:
        self._projection = projection
        self._generation = generation
        self._stored = set(stored)
        self._new: list[dict[str, Any]] = []
        self._newest: dict[Key, dict[str, Any]] = {}
        self._closed: list[dict[str, Any]] = []

    def note(self, key: Key, before: Row | None, after: Row, position: int) -> Row:
        """Take down that the row of `key` is `after` from `position` on; returns it as it will be stored."""
        row = {**after, "generation": self._generation}
        if not self._projection.versioned:
            self._newest[key] = row
            return row
        row |= {"from_position": position, "to_position": None}
        if key in self._newest:
            self._newest[key]["to_position"] = position
        elif key in self._stored and before is not None:
            self._closed.append({"b_key": key, "b_from": before["from_position"], "b_to": position})
        self._new.append(row)
        self._newest[key] = row
        return row

    async def write(self, connection: AsyncConnection) -> None:
        table = self._projection.table
        if self._closed:
            await connection.execute(self._close(), [self._closing(closed) for closed in self._closed])
        rows = self._new if self._projection.versioned else list(self._newest.values())
        if not rows:
            return
        statement = insert(table)
        if not self._projection.versioned:
            replaced = {
                column.name: statement.excluded[column.name]
                for column in table.columns
                if not column.primary_key
            }
            statement = statement.on_conflict_do_update(
                index_elements=list(table.primary_key.columns), set_=replaced
            )
        await connection.execute(statement, rows)

    def _close(self) -> sa.Update:
        table = self._projection.table
        return (
            sa.update(table)
            .where(
                table.c.generation == self._generation,
                table.c.from_position == sa.bindparam("b_from"),
                *(table.c[name] == sa.bindparam(f"b_{name}") for name in self._projection.key),
            )
            .values(to_position=sa.bindparam("b_to"))
        )

    def _closing(self, closed: Mapping[str, Any]) -> dict[str, Any]:
        key = {f"b_{name}": value for name, value in zip(self._projection.key, closed["b_key"], strict=True)}
        return {"b_from": closed["b_from"], "b_to": closed["b_to"], **key}
