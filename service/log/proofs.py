"""Many inclusion proofs under one size of the tree: each tile is read once, each subtree folded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.log.tiles import read_tile
from service.tlog.merkle import fold
from service.tlog.plans import Subtree, inclusion_plan
from service.tlog.tiles import TileId

if TYPE_CHECKING:
    from service.log.tiles import Connection

MOST_TILES = 512  # 8 KiB each
MOST_ROOTS = 65_536


class Prover:
    """Builds the inclusion proofs of leaves in the tree of `size` leaves.

    What it has read it keeps, within bounds: leaves that are proved in the order of the log, roughly, cost a
    few hashes each.
    """

    def __init__(self, connection: Connection, size: int) -> None:
        self.size = size
        self._connection = connection
        self._tiles: dict[TileId, bytes] = {}
        self._roots: dict[Subtree, bytes] = {}

    async def siblings(self, position: int) -> list[bytes]:
        """The siblings of the leaf at `position`, its own first (RFC 6962 §2.1.1).

        Raises:
            OutsideTree: the tree has no such leaf.

        """
        plan = inclusion_plan(position, self.size)
        return [
            fold(b"".join([await self._root(subtree) for subtree in element])) for element in plan.elements
        ]

    async def _root(self, subtree: Subtree) -> bytes:
        root = self._roots.get(subtree)
        if root is None:
            tile = subtree.tile(self.size)
            root = subtree.root(tile, await self._tile(tile))
            if len(self._roots) >= MOST_ROOTS:
                self._roots.clear()
            self._roots[subtree] = root
        return root

    async def _tile(self, tile: TileId) -> bytes:
        hashes = self._tiles.get(tile)
        if hashes is None:
            hashes = await read_tile(self._connection, tile)
            if len(self._tiles) >= MOST_TILES:
                self._tiles.clear()
            self._tiles[tile] = hashes
        return hashes
