"""Building proofs from tiles: first which tiles, then the hashes.

A proof of RFC 6962 is a list of roots of ranges of leaves. Each range falls into complete subtrees, and each
of those is found within one tile. A `Plan` names all of it without reading anything, so that the caller can
fetch the tiles in one round trip, from wherever they are, and only then asks for the hashes::

    plan = inclusion_plan(index, size)
    tiles = {tile: ... for tile in plan.tiles}
    proof = plan.hashes(tiles.__getitem__)

No plan needs more than two tiles of a level: at 600 million leaves, seven tiles or so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from service.errors import Malformed, OutsideTree
from service.tlog.encoding import HASH_BYTES
from service.tlog.merkle import fold, tree_root
from service.tlog.tiles import TILE_HEIGHT, TILE_WIDTH, TileId, tile_width


@dataclass(frozen=True, slots=True)
class Subtree:
    """The complete subtree over the leaves [index 2^height, (index + 1) 2^height)."""

    height: int
    index: int

    def tile(self, size: int) -> TileId:
        """Return the tile that holds this subtree, as wide as it is in a tree of `size` leaves."""
        level, height = divmod(self.height, TILE_HEIGHT)
        index = (self.index << height) // TILE_WIDTH
        return TileId(level, index, tile_width(level, index, size))

    def root(self, tile: TileId, hashes: bytes) -> bytes:
        """Return the root, from the tile's packed hashes. Raises `Malformed` when they are too few."""
        width = 1 << (self.height % TILE_HEIGHT)
        start = (self.index * width) % TILE_WIDTH * HASH_BYTES
        end = start + width * HASH_BYTES
        if len(hashes) < end:
            raise Malformed(tile.path, f"has {len(hashes)} bytes where at least {end} are needed")
        return tree_root(hashes[start:end])


@dataclass(frozen=True, slots=True)
class Plan:
    """The hashes to find in a tree of `size` leaves, each as the complete subtrees to fold."""

    size: int
    elements: tuple[tuple[Subtree, ...], ...]

    @property
    def tiles(self) -> tuple[TileId, ...]:
        """The tiles needed, each once. Where a tile is partial, any wider one serves as well."""
        return tuple(
            dict.fromkeys(subtree.tile(self.size) for element in self.elements for subtree in element)
        )

    def hashes(self, read_tile: Callable[[TileId], bytes]) -> list[bytes]:
        """Return the hashes. `read_tile` is called once for each of `tiles` and returns its packed hashes.

        The tiles are taken at their word: check the result with `service.tlog.proofs`. Raises `Malformed`
        when a tile is too short, and whatever `read_tile` raises.
        """
        tiles = {tile: read_tile(tile) for tile in self.tiles}
        return [fold(b"".join(self._roots(element, tiles))) for element in self.elements]

    def _roots(self, element: Iterable[Subtree], tiles: dict[TileId, bytes]) -> Iterable[bytes]:
        for subtree in element:
            tile = subtree.tile(self.size)
            yield subtree.root(tile, tiles[tile])


def root_plan(size: int) -> Plan:
    """Plan the root of the tree as it was at `size` leaves: one hash."""
    if size < 0:
        raise OutsideTree(f"there is no tree of {size} leaves")
    return Plan(size, (_complete_subtrees(0, size),))


def inclusion_plan(index: int, size: int) -> Plan:
    """Plan the inclusion proof of leaf `index` (from 0) in the tree of `size` leaves (RFC 6962 §2.1.1).

    Raises `OutsideTree` unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise OutsideTree(f"the tree of {size} leaves has no leaf {index}")
    start, end = 0, size
    siblings = []
    while end - start > 1:
        middle = start + _left_part(end - start)
        if index < middle:
            siblings.append(_complete_subtrees(middle, end))
            end = middle
        else:
            siblings.append(_complete_subtrees(start, middle))
            start = middle
    return Plan(size, tuple(reversed(siblings)))


def consistency_plan(old_size: int, new_size: int) -> Plan:
    """Plan the consistency proof between two sizes of the tree (RFC 6962 §2.1.2).

    It is empty when the sizes are equal or the old one is 0. Raises `OutsideTree` unless 0 <= old <= new.
    """
    if not 0 <= old_size <= new_size:
        raise OutsideTree(f"a tree of {new_size} leaves does not grow from one of {old_size}")
    if old_size == 0:
        return Plan(new_size, ())
    start, end = 0, new_size
    ranges = []
    while end != old_size:
        middle = start + _left_part(end - start)
        if old_size <= middle:
            ranges.append(_complete_subtrees(middle, end))
            end = middle
        else:
            ranges.append(_complete_subtrees(start, middle))
            start = middle
    if start:
        # The old tree is not one complete subtree of the new one: its last part cannot be told from its root.
        ranges.append(_complete_subtrees(start, end))
    return Plan(new_size, tuple(reversed(ranges)))


def _left_part(size: int) -> int:
    """Return the largest power of two strictly below `size`: where RFC 6962 splits a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def _complete_subtrees(start: int, end: int) -> tuple[Subtree, ...]:
    """Return the complete subtrees of a range that a split of the tree made, the largest first."""
    subtrees = []
    while start < end:
        height = (end - start).bit_length() - 1
        subtrees.append(Subtree(height, start >> height))
        start += 1 << height
    return tuple(subtrees)
