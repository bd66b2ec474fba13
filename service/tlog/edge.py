"""Growing a tiled tree: the right edge, and the tiles that become full as leaves arrive.

The state is the content of the partial tiles at the right edge, one for each level, and nothing else. Why not
the frontier, which is smaller? A tile that becomes full is written with all its 256 hashes, so those at its
left must be at hand; a log must serve its partial tiles anyway (C2SP tlog-tiles, Partial Tiles); and every
hash of the tree then stands in a full tile or in the edge, so that proofs need no third source. The frontier,
and with it the root, follow from the edge whenever they are wanted.

Appending never hashes below the edge: a tile is hashed up once, when it is full. That is one hash for a leaf
beyond its own leaf hash, whether leaves come one by one or by the thousand.

What to keep in a database: level l changes only when a multiple of 256^l is passed, so each level is best a
value of its own, and only those that changed (`RightEdge.tiles` holds the same object otherwise) are written.
At a hundred million leaves that is 4 levels of at most 8,160 bytes. Level 0 may also be left out and rebuilt
with `leaf_hashes` from the last ``size % 256`` entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from service.errors import Malformed
from service.tlog.encoding import HASH_BYTES, LARGEST_SIZE
from service.tlog.merkle import Frontier, check_packed, parents
from service.tlog.tiles import TILE_BYTES, TILE_HEIGHT

_SIZE_BYTES = 8


@dataclass(frozen=True, slots=True)
class FullTile:
    """A tile that will never change again: its place and its 8,192 bytes."""

    level: int
    index: int
    hashes: bytes


class Growth(NamedTuple):
    """What an append makes: the new edge, and the tiles that became full, level by level."""

    edge: RightEdge
    full_tiles: list[FullTile]


@dataclass(frozen=True, slots=True)
class RightEdge:
    """A tree of `size` leaves, as the packed hashes of its partial tiles, level 0 first.

    `tiles` has one item for each base-256 digit of the size, empty where that digit is 0. A value: appending
    returns another one. Raises `Malformed` when `tiles` does not fit `size`.
    """

    size: int = 0
    tiles: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= LARGEST_SIZE:
            raise Malformed("right edge", f"size {self.size} is not between 0 and 2^63 - 1")
        widths = _widths(self.size)
        if [len(tile) for tile in self.tiles] != [width * HASH_BYTES for width in widths]:
            raise Malformed(
                "right edge",
                f"a tree of {self.size} leaves ends in tiles of {widths} hashes, "
                f"not in {[len(tile) for tile in self.tiles]} bytes",
            )

    def append(self, leaf_hashes: bytes) -> Growth:
        """Return the tree with more leaves, given by their packed leaf hashes.

        Raises `Malformed` when the length is not a multiple of 32.
        """
        check_packed(leaf_hashes, "appended hashes")
        tiles = list(self.tiles)
        full_tiles: list[FullTile] = []
        arriving = leaf_hashes
        level = 0
        while arriving:
            if level == len(tiles):
                tiles.append(b"")
            row = tiles[level] + arriving
            edge_at = len(row) - len(row) % TILE_BYTES
            index = self.size >> (TILE_HEIGHT * (level + 1))
            full_tiles += [
                FullTile(level, index + at // TILE_BYTES, row[at : at + TILE_BYTES])
                for at in range(0, edge_at, TILE_BYTES)
            ]
            tiles[level] = row[edge_at:]
            arriving = row[:edge_at]
            for _ in range(TILE_HEIGHT):
                arriving = parents(arriving)
            level += 1
        return Growth(RightEdge(self.size + len(leaf_hashes) // HASH_BYTES, tuple(tiles)), full_tiles)

    def frontier(self) -> Frontier:
        """Return the same tree as the roots of its complete subtrees: at most 247 hashes for each level."""
        hashes = [Frontier().extend(tile).hashes for tile in reversed(self.tiles)]
        return Frontier(self.size, b"".join(hashes))

    def root(self) -> bytes:
        return self.frontier().root()

    def to_bytes(self) -> bytes:
        """Return the size as 8 bytes, big-endian, then the tiles, level 0 first."""
        return self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self.tiles)

    @classmethod
    def from_bytes(cls, data: bytes) -> RightEdge:
        """Read what `to_bytes` wrote. Raises `Malformed`."""
        size = int.from_bytes(data[:_SIZE_BYTES], "big")
        tiles = []
        at = _SIZE_BYTES
        for width in _widths(size):
            tiles.append(data[at : at + width * HASH_BYTES])
            at += width * HASH_BYTES
        if len(data) != at:
            raise Malformed("right edge", f"a tree of {size} leaves takes {at} bytes, not {len(data)}")
        return cls(size, tuple(tiles))


def _widths(size: int) -> list[int]:
    """Return the digits of the size in base 256, the lowest first."""
    return list(size.to_bytes((size.bit_length() + 7) // 8, "little"))
