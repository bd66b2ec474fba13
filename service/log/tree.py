"""The log's Merkle tree as it grows: what an appender keeps of it, and how it is read from the database.

`log_head.tree` holds the frontier, which is what is locked, checked and moved by every append. The content of
the partial tiles (`RightEdge`) is not stored, it follows from the rows: an appender keeps it in memory, takes
up what others have appended meanwhile, and reads it anew when it starts. Full tiles are stored once.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import asyncpg

from service.errors import Tampered, TlogError
from service.log import sql
from service.log.event import StoredEvent
from service.tlog.edge import RightEdge
from service.tlog.encoding import HASH_BYTES
from service.tlog.entry import encode_entry
from service.tlog.merkle import Frontier, leaf_hashes
from service.tlog.tiles import TILE_HEIGHT, TILE_WIDTH

CATCH_UP = 4_096  # events that are cheaper to hash again than to read the whole edge
FEW = 128  # so few leaves are cheaper to add to the frontier than to fold the edge for it


class StoredTile(NamedTuple):
    """A row of `log_tile`."""

    level: int
    number: int
    root: bytes
    hashes: bytes


class Tree(NamedTuple):
    """The tree of the log so far: its right edge, and the frontier that follows from it."""

    edge: RightEdge = RightEdge()
    frontier: Frontier = Frontier()

    @property
    def size(self) -> int:
        return self.edge.size

    def grow(self, leaves: bytes) -> tuple[Tree, list[StoredTile]]:
        """The tree with more packed leaf hashes, and the tiles that became full."""
        edge, full_tiles = self.edge.append(leaves)
        above = {(tile.level, tile.index): tile.hashes for tile in full_tiles}
        stored = []
        for tile in full_tiles:
            parent = above.get((tile.level + 1, tile.index >> TILE_HEIGHT), edge.tiles[tile.level + 1])
            at = tile.index % TILE_WIDTH * HASH_BYTES
            stored.append(StoredTile(tile.level, tile.index, parent[at : at + HASH_BYTES], tile.hashes))
        few = len(leaves) < FEW * HASH_BYTES
        return Tree(edge, self.frontier.extend(leaves) if few else edge.frontier()), stored


async def tree_at(
    connection: asyncpg.Connection[asyncpg.Record], known: Tree, size: int, frontier: bytes
) -> Tree:
    """The tree at `size` leaves, as the rows have it; `known` may be an earlier state of it.

    Raises:
        Tampered: the rows at the log's end do not make the frontier that the head holds.

    """
    if fits(known, size, frontier):
        return known
    if 0 < size - known.size <= CATCH_UP:
        rows = await connection.fetch(sql.READ_ENTRIES, known.size, size)
        tree = known.grow(leaf_hashes(map(entry_of_row, rows)))[0]
        if fits(tree, size, frontier):
            return tree
    tree = await read_tree(connection, size)
    if not fits(tree, size, frontier):
        raise Tampered(f"the end of the log does not fit its tree at {size} events. Run `calltrail verify`")
    return tree


def fits(tree: Tree, size: int, frontier: bytes) -> bool:
    return tree.size == size and tree.frontier.hashes == frontier


async def read_tree(connection: asyncpg.Connection[asyncpg.Record], size: int) -> Tree:
    """The tree at `size` leaves, from the full tiles and the entries after the last of them.

    Raises:
        Tampered: rows or tiles are missing.

    """
    tiles: list[bytes] = []
    entries = await connection.fetch(sql.READ_ENTRIES, size - size % TILE_WIDTH, size)
    tiles.append(leaf_hashes(map(entry_of_row, entries)))
    level = 0
    while count := size >> (TILE_HEIGHT * (level + 1)):
        roots = await connection.fetch(sql.TILE_ROOTS, level, count - count % TILE_WIDTH, count)
        tiles.append(b"".join(row["root"] for row in roots))
        level += 1
    try:
        edge = RightEdge(size, tuple(tiles) if size else ())
    except TlogError as error:
        raise Tampered(f"events or tiles are missing at the end of the log: {error}") from error
    return Tree(edge, edge.frontier())


def entry_of_row(row: asyncpg.Record) -> bytes:
    """The entry of a row of `sql.READ_ENTRIES`."""
    position, recorded_at, event_id, stream, kind, commitment = row
    return encode_entry(position, event_id, stream, kind, moment_text(recorded_at), commitment)


def entry_of(event: StoredEvent) -> bytes:
    """The entry of an event that was read."""
    return encode_entry(
        position=event.position,
        event_id=str(event.event_id),
        stream=event.stream,
        kind=event.kind,
        recorded_at=moment_text(event.recorded_at),
        commitment=event.commitment,
    )


def moment_text(moment: datetime) -> str:
    """A UTC time as entries write it."""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
