"""One chunk of positions: its leaves, computed from the rows, against the stored tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import msgspec

from service.errors import DatabaseError
from service.log import sql
from service.log.codec import Codecs
from service.log.event import PAYLOAD_REDACTED
from service.log.tree import moment_text
from service.tlog.encoding import HASH_BYTES
from service.tlog.entry import SALT_BYTES, encode_entry
from service.tlog.merkle import leaf_hash, tree_root
from service.tlog.tiles import TILE_WIDTH

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

PAGE = 1 << 12
EXPLAINED = 300  # strange rows of a chunk that are compared with one another

READ = """
SELECT position, recorded_at, event_id::text, codec, stream, kind, salt, commitment, payload FROM event_log
WHERE position >= $1 AND position < $2 ORDER BY position
"""


class Row(NamedTuple):
    """The envelope of a row that does not fit its tile."""

    position: int
    recorded_at: str
    event_id: str
    stream: str
    kind: str
    commitment: bytes

    def leaf_at(self, position: int) -> bytes:
        return leaf_hash(
            encode_entry(position, self.event_id, self.stream, self.kind, self.recorded_at, self.commitment)
        )


@dataclass
class Chunk:
    """What a worker found in [start, end)."""

    start: int
    end: int
    row_roots: bytes = b""
    """The roots of the full tiles, as the rows make them."""
    tails: dict[int, bytes] = field(default_factory=dict)
    """For each size that is asked for, the leaves after its last full tile."""
    missing: list[int] = field(default_factory=list)
    payloads: list[tuple[int, str]] = field(default_factory=list)
    strange: list[Row] = field(default_factory=list)
    expected: dict[int, bytes] = field(default_factory=dict)
    """The leaves that the tiles have where the rows make others."""
    bad_roots: list[int] = field(default_factory=list)
    tile_roots: bytes = b""
    """The same, as the stored tiles' hashes make them; of the rows where no tile is."""
    redacted: dict[int, str] = field(default_factory=dict)
    redactions: dict[int, str] = field(default_factory=dict)


async def check_chunk(
    connection: Connection, codecs: Codecs, start: int, end: int, sizes: Sequence[int]
) -> Chunk:
    """Compute the leaves of [start, end) from the rows and compare them with the tiles."""
    chunk = Chunk(start, end)
    found: list[bytes] = []
    for at in range(start, end, PAGE):
        page = await connection.fetch(READ, at, min(at + PAGE, end))
        found += check_page(chunk, page, at, min(at + PAGE, end), codecs)
    leaves = b"".join(found)
    for size in sizes:
        full = size - size % TILE_WIDTH
        chunk.tails[size] = leaves[(full - start) * HASH_BYTES : (size - start) * HASH_BYTES]
    tiles = await connection.fetch(sql.TILES, 0, start // TILE_WIDTH, end // TILE_WIDTH)
    compare_tiles(chunk, leaves, {tile["index"]: (tile["root"], tile["hashes"]) for tile in tiles})
    looked_at = sorted(chunk.expected)[:EXPLAINED]
    chunk.strange = [
        envelope(row)
        for position in looked_at
        for row in await connection.fetch(READ, position, position + 1)
    ]
    return chunk


def check_page(
    chunk: Chunk, page: Sequence[asyncpg.Record], start: int, end: int, codecs: Codecs
) -> list[bytes]:
    """The leaf hashes of a page; a missing event has a leaf that nothing else can have."""
    leaves: list[bytes] = []
    due = start
    unpack = codecs.unpackers()
    last_moment, moment = None, ""
    for position, recorded_at, event_id, codec, stream, kind, salt, commitment, stored in page:
        while due < position:
            chunk.missing.append(due)
            leaves.append(bytes(HASH_BYTES))
            due += 1
        due = position + 1
        if recorded_at != last_moment:
            last_moment, moment = recorded_at, moment_text(recorded_at)
        entry = encode_entry(position, event_id, stream, kind, moment, commitment)
        leaves.append(sha256(b"\x00" + entry).digest())
        try:
            payload = unpack[codec](stored)
        except KeyError:
            chunk.payloads.append((position, f"it is stored with codec {codec}, which is not there"))
            continue
        except (DatabaseError, MemoryError) as error:
            chunk.payloads.append((position, str(error)))
            continue
        if salt is None:
            chunk.redacted[position] = sha256(payload).hexdigest()
        elif len(salt) != SALT_BYTES or sha256(salt + payload).digest() != commitment:
            chunk.payloads.append((position, "it does not open its commitment"))
        if kind == PAYLOAD_REDACTED:
            chunk.redactions |= redactions_of(payload)
    while due < end:
        chunk.missing.append(due)
        leaves.append(bytes(HASH_BYTES))
        due += 1
    return leaves


def redactions_of(payload: bytes) -> dict[int, str]:
    """The positions that a `PayloadRedacted` names, with the SHA-256 of what stands there since."""
    try:
        events = msgspec.json.decode(payload.partition(b"\n")[0])["events"]
        return {int(position): str(digest) for position, digest in events}
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return {}


def envelope(row: asyncpg.Record) -> Row:
    position, recorded_at, event_id, _, stream, kind, _, commitment, _ = row
    return Row(position, moment_text(recorded_at), event_id, stream, kind, commitment)


def compare_tiles(chunk: Chunk, all_leaves: bytes, tiles: dict[int, tuple[bytes, bytes]]) -> None:
    """Compare the leaves with the stored tiles of level 0."""
    row_roots: list[bytes] = []
    tile_roots: list[bytes] = []
    for at in range(0, len(all_leaves), TILE_WIDTH * HASH_BYTES):
        leaves = all_leaves[at : at + TILE_WIDTH * HASH_BYTES]
        first = chunk.start + at // HASH_BYTES
        if len(leaves) < TILE_WIDTH * HASH_BYTES:
            break
        root = computed = tree_root(leaves)
        stored = tiles.get(first // TILE_WIDTH)
        if stored is None:
            chunk.bad_roots.append(first)
        elif stored != (root, leaves):
            computed = tree_root(stored[1]) if len(stored[1]) == len(leaves) else bytes(HASH_BYTES)
            if stored[0] != computed:
                chunk.bad_roots.append(first)
            for index in range(TILE_WIDTH):
                there = stored[1][index * HASH_BYTES : (index + 1) * HASH_BYTES]
                if there != leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]:
                    chunk.expected[first + index] = there
        row_roots.append(root)
        tile_roots.append(computed)
    chunk.row_roots, chunk.tile_roots = b"".join(row_roots), b"".join(tile_roots)
