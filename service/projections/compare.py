"""Comparing two generations of a projection, row for row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from service.projections.projection import Projection
from service.projections.tables import OWN, Connection, ProjectionTable


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
    """How many rows of two generations differ, and the first `limit` of them, by key."""
    key = [*projection.key, *(["from_position"] if projection.versioned else [])]
    compared = [
        column.name
        for column in projection.table.columns
        if column.name not in key and column.name not in OWN[:1]
    ]
    same_key = " AND ".join(f"a.{name} = b.{name}" for name in key)
    old, fresh = ", ".join(f"a.{name}" for name in compared), ", ".join(f"b.{name}" for name in compared)
    joined = (
        f"FROM {ProjectionTable(projection, live).name} a "
        f"FULL JOIN {ProjectionTable(projection, new).name} b ON {same_key} "
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
        found.append(Difference(projection.name, dict(zip(key, where, strict=True)), only, fields))
    return count, found
