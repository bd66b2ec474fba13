"""The tree of a log that was begun before logs had trees (schema revision 0001)."""

from __future__ import annotations

import asyncpg

from service.errors import Tampered
from service.log import sql
from service.log.tree import Tree, entry_of_row
from service.tlog.merkle import leaf_hashes

PAGE = 1 << 14
SET_TREE = "UPDATE log_head SET tree = $1"
KEEP_TILES = "INSERT INTO log_tile (level, index, root, hashes) VALUES ($1, $2, $3, $4)"


async def backfill_tree(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Make the tree from the events, if there are events and no tree; in the caller's transaction.

    Every event has its commitment from the beginning, so nothing else is missing.

    Raises:
        Tampered: positions are missing; the tree of such a log would hide it.

    """
    head = await connection.fetchrow(sql.HEAD_TREE)
    assert head is not None
    size: int = head["next_position"]
    if size == 0 or head["tree"]:
        return
    tree = Tree()
    for start in range(0, size, PAGE):
        rows = await connection.fetch(sql.READ_ENTRIES, start, min(start + PAGE, size))
        if len(rows) != min(start + PAGE, size) - start:
            raise Tampered(f"events are missing after position {start}. Restore the log from a backup")
        tree, tiles = tree.grow(leaf_hashes(map(entry_of_row, rows)))
        if tiles:
            await connection.executemany(KEEP_TILES, tiles)
    await connection.execute(SET_TREE, tree.frontier.hashes)
