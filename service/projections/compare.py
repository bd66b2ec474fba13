"""Comparing two generations of a projection, row for row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.projections.projection import Projection
from service.projections.tables import OWN, Connection, ProjectionTable
from service.projections.unfolding import Unfolding


class Difference(NamedTuple):
    """A row that reads differently: its key (with from_position, if versioned) and the fields that differ.

    `fields`: name → (what the live generation has, what the new one has). A row that only one of them has is
    told by `only`: "live" or "new".
    """

    projection: str
    key: dict[str, Any]
    only: str | None
    fields: dict[str, tuple[Any, Any]]


async def differences(
    connection: Connection, projection: Projection, live: int, new: int, *, limit: int
) -> tuple[int, list[Difference]]:
    """How many rows of two generations differ, parts too, and the first `limit` of them, by key."""
    count, found = 0, list[Difference]()
    old, fresh = ProjectionTable(projection, live), ProjectionTable(projection, new)
    for table, (_, one), (_, other) in zip(tables_of(projection), old.tables, fresh.tables, strict=True):
        more, shown = await compare(connection, projection.name, table, one, other, limit=limit)
        count, found = count + more, (found + shown)[:limit]
    return count, found


def tables_of(projection: Projection) -> list[sa.Table]:
    """Its table, and that of its parts."""
    parts = [projection.parts_table] if isinstance(projection, Unfolding) else []
    return [projection.table, *parts]


async def compare(
    connection: Connection, projection: str, table: sa.Table, live: str, new: str, *, limit: int
) -> tuple[int, list[Difference]]:
    """How many rows of two tables, `live` and `new`, formed like `table` differ, and the first of them."""
    key = [column.name for column in table.primary_key.columns if column.name not in OWN[:1]]
    compared = [column.name for column in table.columns if column.name not in {*key, *OWN[:1]}]
    same_key = " AND ".join(f"a.{name} = b.{name}" for name in key)
    old, fresh = ", ".join(f"a.{name}" for name in compared), ", ".join(f"b.{name}" for name in compared)
    joined = (
        f"FROM {live} a "
        f"FULL JOIN {new} b ON {same_key} "
        f"WHERE a.generation IS NULL OR b.generation IS NULL OR ROW({old}) IS DISTINCT FROM ROW({fresh})"
    )
    count = await connection.fetchval(f"SELECT count(*) {joined}", timeout=None)
    if not count:
        return 0, []
    keys = ", ".join(f"coalesce(a.{name}, b.{name})" for name in key)
    rows = await connection.fetch(
        f"SELECT {keys}, a.generation IS NULL, b.generation IS NULL, {old}, {fresh} {joined} "
        f"ORDER BY {', '.join(str(place) for place in range(1, len(key) + 1))} LIMIT {limit:d}",
        timeout=None,
    )
    found = []
    for row in rows:
        values = list(row)
        where, (new_only, live_only), rest = (
            values[: len(key)],
            values[len(key) : len(key) + 2],
            values[len(key) + 2 :],
        )
        pairs: Mapping[str, tuple[Any, Any]] = dict(
            zip(compared, zip(rest[: len(compared)], rest[len(compared) :], strict=True), strict=True)
        )
        only = "new" if new_only else "live" if live_only else None
        fields = {} if only else {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        found.append(Difference(projection, dict(zip(key, where, strict=True)), only, fields))
    return count, found
