"""The files of a tiled log (C2SP tlog-tiles): how they are named, which exist, what is in them.

A tile is 256 neighbouring nodes of the tree, packed: node i of tile n at level l is the root of the leaves
[(256 n + i) 256^l, (256 n + i + 1) 256^l). At the right edge of the tree stand partial tiles, named by their
width. An entry bundle holds the entries under one tile of level 0. Numbers are cut into groups of three
digits, all but the last with an ``x`` in front: 1234067 is ``x001/x234/067``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from service.errors import Malformed
from service.tlog.encoding import HASH_BYTES, LARGEST_SIZE

TILE_HEIGHT = 8
"""Levels of the tree in one tile."""

TILE_WIDTH = 1 << TILE_HEIGHT
"""Hashes in a full tile, and entries in a full bundle."""

TILE_BYTES = TILE_WIDTH * HASH_BYTES
"""Length of a full tile."""

LARGEST_ENTRY = 65_535
"""Longest entry in bytes: its length is written as a uint16."""

_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9]|[1-5][0-9]|6[0-3])/"
    r"(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class TileId:
    """A hash tile: `level` from 0 (leaf hashes), `index` within the level, `width` from 1 to 256 hashes."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Path below the log's prefix, without a slash in front."""
        return f"tile/{self.level}/{_index_path(self.index, self.width)}"


@dataclass(frozen=True, slots=True)
class BundleId:
    """An entry bundle: entries [256 index, 256 index + width)."""

    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Path below the log's prefix, without a slash in front."""
        return f"tile/entries/{_index_path(self.index, self.width)}"


def _index_path(index: int, width: int) -> str:
    path = f"{index % 1000:03d}"
    while index := index // 1000:
        path = f"x{index % 1000:03d}/{path}"
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def parse_path(path: str) -> TileId | BundleId:
    """Return what a path below the log's prefix names. Raises `Malformed` for any other path."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise Malformed(
            "tile path", "is not tile/<level>/<index>[.p/<width>] or tile/entries/<index>[.p/<width>]"
        )
    level = match["level"]
    index = int(match["index"].replace("x", "").replace("/", ""))
    width = int(match["width"] or TILE_WIDTH)
    named = BundleId(index, width) if level == "entries" else TileId(int(level), index, width)
    if named.path != path or width > TILE_WIDTH or index > LARGEST_SIZE:
        raise Malformed(
            "tile path", "has an index above 2^63 - 1 or with needless zeros, or a width above 255"
        )
    return named


def tile_width(level: int, index: int, size: int) -> int:
    """Return how many hashes (0 to 256) a tile has in a tree of `size` leaves; as level 0, bundles."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - TILE_WIDTH * index))


def full_tiles(old_size: int, new_size: int) -> Iterator[TileId]:
    """Yield the tiles that become full when a tree grows, level by level, each level from left to right."""
    level = 0
    while new_size := new_size // TILE_WIDTH:
        old_size //= TILE_WIDTH
        yield from (TileId(level, index) for index in range(old_size, new_size))
        level += 1


def partial_tiles(size: int) -> list[TileId]:
    """Return the partial tiles at the right edge of a tree, at most one for each level."""
    levels = range((size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT)
    edge = [(level, size >> (TILE_HEIGHT * level)) for level in levels]
    return [
        TileId(level, count // TILE_WIDTH, count % TILE_WIDTH) for level, count in edge if count % TILE_WIDTH
    ]


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Return the entries of one bundle, each after its length as a big-endian uint16.

    Raises `Malformed` for an entry longer than 65,535 bytes.
    """
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > LARGEST_ENTRY:
            raise Malformed("entry", f"{len(entry)} bytes do not fit a bundle, the limit is {LARGEST_ENTRY}")
        parts += (struct.pack(">H", len(entry)), entry)
    return b"".join(parts)


def decode_bundle(data: bytes) -> Sequence[bytes]:
    """Return the entries of a bundle. Raises `Malformed` when it is cut short or holds more than 256."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data) or len(entries) == TILE_WIDTH:
            raise Malformed("entry bundle", "is cut short or holds more than 256 entries")
        entries.append(data[start:at])
    return entries
