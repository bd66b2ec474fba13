"""One generation of one projection, as a table `<name>_g<generation>`, a partition of the projection's own.

While it is built it stands alone, with the few indexes that building needs; `attach` makes the others and
lets readers see it. All names come from the catalogue of projections, none from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

import asyncpg
import msgspec
from sqlalchemy.dialects import postgresql

from service.projections.intervals import node_of
from service.projections.projection import Key, Projection, Row, Sweep
from service.projections.unfolding import Parts, Unfolding

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SORTING_MB = 256  # for the indexes of a generation that is built

OWN = ("generation", "from_position", "to_position", "node")
_encode_json = msgspec.json.encode
_decode_json = msgspec.json.decode


async def teach_json(connection: Connection) -> None:
    """Let `connection` read and write jsonb as plain values, in COPY too (on the wire: a 1, then text)."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\1" + _encode_json(value),
        decoder=lambda raw: _decode_json(raw[1:]),
    )


async def prepare(connection: Connection) -> None:
    """Make `connection` fit for folding: jsonb as plain values, and rows found by index from the first.

    A generation grows while plans that were made for an empty table are kept.
    """
    await teach_json(connection)
    await connection.execute(
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
    )
    await connection.execute("SET jit = off")
    # Rows and checkpoint are in one transaction: what a crash of Postgres undoes is folded again.
    await connection.execute("SET synchronous_commit = off")


class ProjectionTable:
    """The table of a projection's generation."""

    def __init__(self, projection: Projection, generation: int) -> None:
        columns = projection.table.columns
        self.parent = projection.table.name
        self.name = f"{self.parent}_g{generation}"
        self._generation = generation
        self._versioned = projection.versioned
        self._early_indexes = projection.early_indexes
        self._parts = (
            Parts(projection, projection.key[0], generation) if isinstance(projection, Unfolding) else None
        )
        own = OWN if self._versioned else OWN[:1]
        self._columns = tuple(column.name for column in columns if column.name not in own)
        self.shown = itemgetter(*self._columns)
        self._copied = (*own, *self._columns)
        self._key = projection.key
        self._key_columns = [self._columns.index(name) for name in self._key]
        types = [columns[name].type.compile(dialect=postgresql.dialect()) for name in self._key]  # type: ignore[no-untyped-call]
        arrays = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(types, 1))
        same = " AND ".join(f"t.{name} = k.{name}" for name in self._key)
        wanted = f"unnest({arrays}) AS k ({', '.join(self._key)})"
        shown = ", ".join(f"t.{name}" for name in self._columns)
        since = "t.from_position" if self._versioned else "0::bigint"
        still = " AND t.to_position IS NULL" if self._versioned else f" AND t.generation = {generation}"
        after = len(self._key) + 1
        # OFFSET 0 keeps the planner from turning the look-ups by index around, whatever it thinks of sizes.
        found = (
            f"{wanted} CROSS JOIN LATERAL (SELECT t.*, t.ctid AS place FROM {self.name} t "  # noqa: S608 ours
            f"WHERE {same}{still} OFFSET 0) AS t"
        )
        self._current = f"SELECT {since}, {shown} FROM {found}"  # noqa: S608 ours
        self._sweep = f"SELECT {', '.join(self._key)} FROM {self.name} t WHERE true{still} AND "  # noqa: S608 ours
        self._delete = f"DELETE FROM {self.name} WHERE ctid = ANY (ARRAY(SELECT place FROM {found}))"  # noqa: S608 ours
        self._close = (
            f"UPDATE {self.name} AS u SET to_position = c.upto, node = c.node FROM ("  # noqa: S608 ours
            f"SELECT t.place, k.upto, k.node "
            f"FROM unnest({arrays}, ${after}::bigint[], ${after + 1}::bigint[]) "
            f"AS k ({', '.join(self._key)}, upto, node) "
            f"CROSS JOIN LATERAL (SELECT t.ctid AS place FROM {self.name} t "
            f"WHERE {same} AND t.to_position IS NULL OFFSET 0) AS t) AS c "
            "WHERE u.ctid = c.place"
        )

    @property
    def has_parts(self) -> bool:
        return self._parts is not None

    # Rows

    def record(self, row: Row, since: int, upto: int | None) -> tuple[Any, ...]:
        """A row as `copy` takes it."""
        if not self._versioned:
            return (self._generation, *self.shown(row))
        node = None if upto is None else node_of(since, upto)
        return (self._generation, since, upto, node, *self.shown(row))

    async def copy(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        await connection.copy_records_to_table(self.name, records=rows, columns=self._copied)

    async def current(self, connection: Connection, keys: Sequence[Key]) -> list[tuple[Key, int, Row]]:
        """The current rows of `keys`, each with the position since which it is so."""
        found: list[tuple[Key, int, Row]] = []
        for since, *values in await connection.fetch(self._current, *turned(keys)):
            key = tuple(values[place] for place in self._key_columns)
            found.append((key, since, dict(zip(self._columns, values, strict=True))))
        return found

    async def keys_where(self, connection: Connection, sweep: Sweep) -> tuple[Key, ...]:
        """The keys of the current rows for which `sweep` holds."""
        found = await connection.fetch(self._sweep + sweep.where, sweep.value)
        return tuple(sorted(tuple(row) for row in found))

    async def close(self, connection: Connection, closings: Sequence[tuple[Key, int, int]]) -> None:
        """End the current intervals of keys: (key, since, upto)."""
        keys = [key for key, _, _ in closings]
        uptos = [upto for _, _, upto in closings]
        nodes = [node_of(since, upto) for _, since, upto in closings]
        await connection.execute(self._close, *turned(keys), uptos, nodes)

    async def delete(self, connection: Connection, keys: Sequence[Key]) -> None:
        await connection.execute(self._delete, *turned(keys))

    def parts(self, row: Row) -> list[tuple[Any, ...]]:
        """The parts of a row, if it has such, as `unfold` takes them."""
        return [] if self._parts is None else self._parts.records(row)

    async def unfold(
        self, connection: Connection, parts: Sequence[tuple[Any, ...]], replaced: Sequence[Any]
    ) -> None:
        """Write `parts` in place of those of the rows whose (single) keys are `replaced`."""
        if self._parts is not None and replaced:
            await connection.execute(self._parts.delete, replaced)
        if self._parts is not None and parts:
            await connection.copy_records_to_table(
                self._parts.name, records=parts, columns=self._parts.columns
            )

    # The table itself

    async def create(self, connection: Connection) -> None:
        """Make the table, with the indexes that building needs."""
        await connection.execute(
            f"CREATE TABLE {self.name} (LIKE {self.parent}, CHECK (generation = {self._generation}))"
        )
        if not self._versioned:
            key = ", ".join(("generation", *self._key))
            await connection.execute(f"ALTER TABLE {self.name} ADD PRIMARY KEY ({key})")
        for place, index in enumerate(self._early_indexes):
            unique = "UNIQUE " if self._versioned and not place else ""
            await connection.execute(f"CREATE {unique}INDEX {self.name}_{place} ON {self.name} {index}")
        if self._parts is not None:
            await self._parts.create(connection)

    async def attach(self, connection: Connection) -> None:
        """Make the remaining indexes and let readers see it. Readers of other generations are not held up."""
        await connection.execute(f"SET maintenance_work_mem = '{SORTING_MB}MB'")
        for parent, name in self.tables:
            await connection.execute(
                f"ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES IN ({self._generation})"
            )
            await connection.execute(f"ANALYZE {name}")

    async def drop(self, connection: Connection) -> None:
        """Delete the generation, outside of any transaction, without holding readers up."""
        for parent, name in self.tables:
            if await connection.fetchval("SELECT to_regclass($1)::text", name) is None:
                continue
            pending = await connection.fetchval(DETACHING, name)
            if pending is not None:
                how = "FINALIZE" if pending else "CONCURRENTLY"
                await connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {name} {how}", timeout=None)
            await connection.execute(f"DROP TABLE IF EXISTS {name}")

    @property
    def tables(self) -> list[tuple[str, str]]:
        """Its tables, each with the one that it is a partition of."""
        parts = [] if self._parts is None else [(self._parts.parent, self._parts.name)]
        return [(self.parent, self.name), *parts]


DETACHING = "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = $1::regclass"
"""Null: it is not attached; true: a detaching was cut off."""


def turned(keys: Iterable[Key]) -> list[list[Any]]:
    """Keys, column by column."""
    return [list(column) for column in zip(*keys, strict=True)]
