"""Tiles and entries of the log's tree as they stand in the database (C2SP tlog-tiles)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from service.errors import NotFound
from service.log import sql
from service.log.tree import entry_of_row
from service.tlog.encoding import HASH_BYTES
from service.tlog.merkle import leaf_hashes
from service.tlog.plans import Plan
from service.tlog.tiles import TILE_WIDTH, BundleId, TileId, encode_bundle

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]


async def read_tile(connection: Connection, tile: TileId) -> bytes:
    """The packed hashes of a tile: the stored full one, cut to its width, or what stands at the edge.

    Raises:
        NotFound: the tree has no such tile, or not yet so wide.

    """
    stored: bytes | None = await connection.fetchval(sql.TILE, tile.level, tile.index)
    if stored is not None:
        return stored[: tile.width * HASH_BYTES]
    begin = tile.index * TILE_WIDTH
    if tile.level == 0:
        rows = await connection.fetch(sql.READ_ENTRIES, begin, begin + tile.width)
        hashes = leaf_hashes(map(entry_of_row, rows))
    else:
        rows = await connection.fetch(sql.TILE_ROOTS, tile.level - 1, begin, begin + tile.width)
        hashes = b"".join(row["root"] for row in rows)
    if len(hashes) != tile.width * HASH_BYTES:
        raise NotFound(f"the log has no {tile.path}")
    return hashes


async def read_bundle(connection: Connection, bundle: BundleId) -> bytes:
    """The entries under a tile of level 0.

    Raises:
        NotFound: the log has not so many entries.

    """
    begin = bundle.index * TILE_WIDTH
    rows = await connection.fetch(sql.READ_ENTRIES, begin, begin + bundle.width)
    if len(rows) != bundle.width:
        raise NotFound(f"the log has no {bundle.path}")
    return encode_bundle(map(entry_of_row, rows))


async def plan_hashes(connection: Connection, plan: Plan) -> list[bytes]:
    """The hashes that `plan` asks for."""
    tiles = {tile: await read_tile(connection, tile) for tile in plan.tiles}
    return plan.hashes(tiles.__getitem__)
