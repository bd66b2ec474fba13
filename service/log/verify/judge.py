"""Joins what was found in the chunks, and says which side is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from service.log import sql
from service.log.verify.chunk import Chunk
from service.log.verify.report import Difference, Kind, Report
from service.tlog.encoding import HASH_BYTES
from service.tlog.merkle import Frontier, tree_root
from service.tlog.tiles import TILE_WIDTH

SHOWN = 1_000  # differences told at most; what is wrong with a log is not known better by more


class Judge:
    """Joins what the workers found, and says which side is wrong."""

    def __init__(
        self, report: Report, chunks: Sequence[Chunk], head_tree: bytes, signed: dict[int, bytes]
    ) -> None:
        self.report = report
        self.chunks = chunks
        self.tails = {size: leaves for chunk in chunks for size, leaves in chunk.tails.items()}
        self.signed = signed
        self.head_tree = head_tree
        self.row_tiles = b"".join(chunk.row_roots for chunk in chunks)
        self.stored_tiles = b"".join(chunk.tile_roots for chunk in chunks)

    def say(self, position: int, kind: Kind, what: str) -> None:
        if len(self.report.differences) < SHOWN:
            self.report.differences.append(Difference(position, kind, what))

    def judge_rows(self) -> None:
        self._judge_payloads()
        frontier = self._frontier(self.row_tiles, self.report.size)
        self.report.root = frontier.root()
        rows_fit_head = frontier.hashes == self.head_tree
        bad_sizes = [size for size, root in self.signed.items() if not self._has_root(size, root)]
        expected = {p: leaf for chunk in self.chunks for p, leaf in chunk.expected.items()}
        missing = [position for chunk in self.chunks for position in chunk.missing]
        if rows_fit_head and not bad_sizes and not missing:
            for position in expected:
                self.say(position, Kind.TILE, "the stored tile has another leaf than the event makes")
        else:
            self._judge_envelopes(expected, missing)
        for chunk in self.chunks:
            for position in chunk.bad_roots:
                self.say(position, Kind.TILE, "a stored tile is missing or does not make its root")
        for size in sorted(bad_sizes):
            self._judge_checkpoint(size, bad_sizes)
        if not rows_fit_head and not self.report.differences:
            self.say(self.report.size, Kind.HEAD, "the tree in the head is not that of the events")

    def _judge_payloads(self) -> None:
        redactions: dict[int, str] = {}
        for chunk in self.chunks:
            redactions |= chunk.redactions
        for chunk in self.chunks:
            for position, what in chunk.payloads:
                self.say(position, Kind.PAYLOAD, what)
            for position, digest in chunk.redacted.items():
                if redactions.get(position) == digest:
                    self.report.redacted.append(position)
                else:
                    self.say(position, Kind.PAYLOAD, "its salt is gone, and no redaction is on record for it")

    def _judge_envelopes(self, expected: dict[int, bytes], missing: Sequence[int]) -> None:
        """Say what happened to the rows that do not fit their tiles."""
        gone = set(missing)
        size = self.report.size
        if missing and missing[-1] == size - 1 and len(missing) == size - missing[0]:
            self.say(missing[0], Kind.TAIL, f"no event from here to {size - 1}")
        else:
            for position in missing:
                self.say(position, Kind.MISSING, "no event stands here")
        rows = [row for chunk in self.chunks for row in chunk.strange]
        stand_in: dict[int, int | None] = {}  # position → where the event that stands there belongs
        for row in rows:
            belongs = (place for place, leaf in expected.items() if row.leaf_at(place) == leaf)
            stand_in[row.position] = next(belongs, None)
        for position, belongs_at in stand_in.items():
            if position in gone:
                continue
            if belongs_at is None:
                new = stand_in.get(position + 1) == position
                kind = Kind.INSERTED if new else Kind.ENVELOPE
                self.say(
                    position, kind, "an event that is not in the tree" if new else "it does not make its leaf"
                )
            else:
                moved = {1: Kind.MISSING, -1: Kind.INSERTED}.get(belongs_at - position, Kind.ORDER)
                self.say(position, moved, f"the event of {belongs_at} stands here")

    def _judge_checkpoint(self, size: int, bad_sizes: Sequence[int]) -> None:
        if size > self.report.size:
            self.say(
                self.report.size,
                Kind.ROLLED_BACK,
                f"a checkpoint was signed at {size} events, the head says {self.report.size}",
            )
            return
        good = max((other for other in self.signed if other < size and other not in bad_sizes), default=0)
        if any(good <= one.position < size for one in self.report.differences):
            return  # that is the reason
        self.say(good, Kind.REWRITTEN, f"between positions {good} and {size - 1}: not what was signed")

    def _has_root(self, size: int, root: bytes) -> bool:
        return size <= self.report.size and self._frontier(self.row_tiles, size).root() == root

    def _frontier(self, tile_roots: bytes, size: int) -> Frontier:
        full = size // TILE_WIDTH
        tail = self.tails.get(size, b"")
        return Frontier().extend(tile_roots[: full * HASH_BYTES], height=8).extend(tail)

    async def judge_upper_tiles(self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> None:
        """Compare the tiles above level 0 with the roots below them, and count all."""
        below, level = self.stored_tiles, 0
        rows = await connection.fetch(sql.TILE_COUNTS, self.report.size)
        counts = {row["level"]: row["count"] for row in rows}
        while full := len(below) // HASH_BYTES:
            if counts.get(level, 0) != full:
                self.say(0, Kind.TILE, f"there are not {full} tiles at level {level}")
            level += 1
            above = []
            stored = {
                row["index"]: (row["root"], row["hashes"])
                for row in await connection.fetch(sql.TILES, level, 0, full // TILE_WIDTH)
            }
            for index in range(full // TILE_WIDTH):
                hashes = below[index * TILE_WIDTH * HASH_BYTES : (index + 1) * TILE_WIDTH * HASH_BYTES]
                above.append(tree_root(hashes))
                if stored.get(index) != (above[-1], hashes):
                    first = index * TILE_WIDTH ** (level + 1)
                    self.say(first, Kind.TILE, f"the tile of level {level} does not fit those below it")
            below = b"".join(above)
        for row in rows:
            if row["beyond"]:
                self.say(0, Kind.TILE, f"{row['beyond']} tiles too many at level {row['level']}")
