"""Rows of a projection unfolded into rows of a second table, for readers that need them one by one.

A fold knows one row for a key. Where readers want to search, sort and count what such a row holds (the
transfers of a call), a projection that is `Unfolding` keeps a second table beside its own: whenever a row
changes, its parts are written anew. Both tables have the same generations, so a rebuild and its swap concern
them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Protocol, runtime_checkable

import asyncpg
import sqlalchemy as sa

from service.projections.projection import Row


@runtime_checkable
class Unfolding(Protocol):
    """A projection, not versioned, whose rows have parts.

    `parts_table` is partitioned by generation and has the projection's `key` (one column) among its columns.
    """

    @property
    def parts_table(self) -> sa.Table: ...

    def parts(self, row: Row) -> Sequence[Row]:
        """The parts of a row; each has all columns of `parts_table` but generation."""


class Parts:
    """The parts' table of one generation: `<name>_g<generation>`."""

    def __init__(self, projection: Unfolding, key: str, generation: int) -> None:
        self.parent = projection.parts_table.name
        self.name = f"{self.parent}_g{generation}"
        self._projection = projection
        self._key = key
        self._generation = generation
        self._columns = [one.name for one in projection.parts_table.columns if one.name != "generation"]
        self._values = itemgetter(*self._columns)

    async def create(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await connection.execute(
            f"CREATE TABLE {self.name} (LIKE {self.parent}, CHECK (generation = {self._generation}))"
        )
        await connection.execute(f"CREATE INDEX {self.name}_0 ON {self.name} ({self._key})")

    @property
    def delete(self) -> str:
        """Deletes the parts of the rows whose keys are `$1`."""
        return f"DELETE FROM {self.name} WHERE {self._key} = ANY ($1)"  # noqa: S608 ours

    @property
    def columns(self) -> list[str]:
        return ["generation", *self._columns]

    def records(self, row: Row) -> list[tuple[Any, ...]]:
        """The parts of `row` as COPY takes them."""
        return [(self._generation, *self._values(part)) for part in self._projection.parts(row)]
