"""Verifying the log: everything is computed anew from the rows and compared with all that is kept.

On all cores: each worker takes a chunk of positions, opens every commitment, makes every leaf, and compares
the leaves with the stored tiles. The roots of the chunks are then joined and compared with the head, with the
upper tiles, with every kept checkpoint, and with those that an auditor has kept elsewhere. Where one differs
it is said what and where: a row against its tile when the tiles make the root that was signed, a tile when
the rows do; and where both were changed, between which two checkpoints.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from multiprocessing import get_context
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import msgspec

from service.errors import DatabaseError, TlogError
from service.log import sql
from service.log.codec import Codecs
from service.log.event import PAYLOAD_REDACTED
from service.log.tree import moment_text
from service.postgres import Database, connect_arguments, database_errors
from service.tlog.checkpoint import Checkpoint, verify_checkpoint
from service.tlog.encoding import HASH_BYTES
from service.tlog.entry import SALT_BYTES, encode_entry
from service.tlog.merkle import Frontier, leaf_hash, tree_root
from service.tlog.note import Ed25519Verifier, Note
from service.tlog.tiles import TILE_WIDTH

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

CHUNK = 1 << 14  # positions that a worker takes at a time; a multiple of TILE_WIDTH
PAGE = 1 << 12
EXPLAINED = 300  # strange rows of a chunk that are compared with one another
SHOWN = 1_000  # differences that are kept apart; all are counted
IN_PROCESS = 1 << 13  # a log this small is verified without starting workers

READ = """
SELECT position, recorded_at, event_id::text, codec, stream, kind, salt, commitment, payload FROM event_log
WHERE position >= $1 AND position < $2 ORDER BY position
"""


class Kind(StrEnum):
    """What is wrong."""

    PAYLOAD = "payload changed"
    ENVELOPE = "envelope changed"
    MISSING = "event missing"
    INSERTED = "event inserted"
    ORDER = "order changed"
    TAIL = "tail cut off"
    HEAD = "head changed"
    ROLLED_BACK = "head rolled back"
    TILE = "tile changed"
    REWRITTEN = "history rewritten"
    CHECKPOINT = "checkpoint changed"


class Difference(NamedTuple):
    """One thing that is not as it was: at which position (the first, where there are several), and what."""

    position: int
    kind: Kind
    what: str


@dataclass
class Report:
    """The outcome. `redacted` lists the positions whose payload was erased, as the log itself records."""

    size: int = 0
    root: bytes = b""
    differences: list[Difference] = field(default_factory=list)
    redacted: list[int] = field(default_factory=list)
    checkpoints: int = 0
    """Signed checkpoints that were compared."""

    @property
    def intact(self) -> bool:
        return not self.differences

    @property
    def first(self) -> Difference | None:
        return min(self.differences, default=None)


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


async def verify_log(
    database: Database,
    *,
    origin: str | None = None,
    trusted: Sequence[Ed25519Verifier] = (),
    against: Iterable[Note] = (),
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Report:
    """Verify the whole log. `progress` is told how many of how many events are done.

    `trusted` are the keys of the log `origin`; without them signatures are not checked. `against` are
    checkpoints of an auditor's own.

    Raises:
        DatabaseError: the log could not be read; nothing is known then.

    """
    with database_errors():
        async with database.pool.acquire() as connection:
            head = await connection.fetchrow(sql.HEAD_AND_BEYOND)
            assert head is not None
            kept = await connection.fetch(sql.KEPT_CHECKPOINTS)
            dictionaries = {row["codec"]: row["dictionary"] for row in await connection.fetch(sql.CODECS, [])}
    report = Report(size=head["next_position"])
    signed = read_checkpoints(report, kept, against, origin, trusted)
    sizes = {report.size, *(size for size in signed if size <= report.size)}
    chunks = await check_chunks(
        database, report.size, sizes=sizes, dictionaries=dictionaries, workers=workers, progress=progress
    )
    judge = Judge(report, chunks, head["tree"], signed)
    judge.judge_rows()
    with database_errors():
        async with database.pool.acquire() as connection:
            await judge.judge_upper_tiles(connection)
    for position in head["beyond"] or ():
        kind = Kind.ROLLED_BACK if position < max(signed, default=0) else Kind.INSERTED
        report.differences.append(Difference(position, kind, "an event that the head does not know of"))
    report.differences.sort()
    return report


def read_checkpoints(
    report: Report,
    kept: Sequence[asyncpg.Record],
    against: Iterable[Note],
    origin: str | None,
    trusted: Sequence[Ed25519Verifier],
) -> dict[int, bytes]:
    """The roots that were signed, by size; checkpoints that are broken are differences."""
    signed: dict[int, bytes] = {}
    notes: list[tuple[str, Note | None, tuple[int, bytes] | None]] = [
        ("an auditor's", n, None) for n in against
    ]
    for row in kept:
        try:
            notes.append(("a kept", Note.decode(row["note"].encode()), (row["size"], row["root"])))
        except TlogError as error:
            report.differences.append(Difference(row["size"], Kind.CHECKPOINT, str(error)))
    for whose, note, columns in notes:
        assert note is not None
        try:
            if trusted and origin:
                checkpoint = verify_checkpoint(note, origin, trusted)
            else:
                checkpoint = Checkpoint.parse(note.text)
        except TlogError as error:
            at = columns[0] if columns else 0
            report.differences.append(Difference(at, Kind.CHECKPOINT, f"{whose} checkpoint: {error}"))
            continue
        if columns and columns != (checkpoint.size, checkpoint.root):
            report.differences.append(
                Difference(columns[0], Kind.CHECKPOINT, "its columns do not fit its signed text")
            )
        if signed.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            report.differences.append(
                Difference(checkpoint.size, Kind.CHECKPOINT, "two checkpoints of this size have other roots")
            )
        report.checkpoints += 1
    return signed


async def check_chunks(
    database: Database,
    size: int,
    *,
    sizes: set[int],
    dictionaries: dict[int, bytes],
    workers: int | None,
    progress: Callable[[int, int], None],
) -> list[Chunk]:
    ends = [(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
    jobs = [(start, end, [one for one in sizes if start < one <= end]) for start, end in ends]
    progress(0, size)
    if size <= IN_PROCESS:
        codecs = Codecs().use(dictionaries)
        with database_errors():
            async with database.pool.acquire() as connection:
                return [await check_chunk(connection, codecs, *job) for job in jobs]
    arguments = connect_arguments(database.url)
    done: dict[int, Chunk] = {}
    loop = asyncio.get_running_loop()
    # Spawned, not forked: a fork would inherit this process's event loop and connections.
    with ProcessPoolExecutor(
        workers or os.cpu_count(), get_context("spawn"), prepare, (arguments, dictionaries)
    ) as pool:
        with nothing_to_import():
            tasks = [loop.run_in_executor(pool, work, *job) for job in jobs]
        for task in asyncio.as_completed(tasks):
            chunk = await task
            done[chunk.start] = chunk
            progress(sum(one.end - one.start for one in done.values()), size)
    return [done[start] for start, _ in ends]


@contextmanager
def nothing_to_import() -> Iterator[None]:
    """Keep processes that are spawned meanwhile from importing the main program: they need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Worker:
    """What a worker process keeps from one chunk to the next: an event loop, a connection, dictionaries."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._codecs = Codecs()
        self._arguments: dict[str, Any] = {}
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    def prepare(self, arguments: dict[str, Any], dictionaries: dict[int, bytes]) -> None:
        self._arguments = arguments
        self._codecs.use(dictionaries)

    def run(self, start: int, end: int, sizes: Sequence[int]) -> Chunk:
        return self._runner.run(self._check(start, end, sizes))

    async def _check(self, start: int, end: int, sizes: Sequence[int]) -> Chunk:
        with database_errors():
            self._connection = self._connection or await asyncpg.connect(**self._arguments)
            return await check_chunk(self._connection, self._codecs, start, end, sizes)


WORKER = Worker()


def prepare(arguments: dict[str, Any], dictionaries: dict[int, bytes]) -> None:
    WORKER.prepare(arguments, dictionaries)


def work(start: int, end: int, sizes: Sequence[int]) -> Chunk:
    """Check one chunk in a process of its own."""
    return WORKER.run(start, end, sizes)


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
        counts = {row["level"]: row["count"] for row in await connection.fetch(sql.TILE_COUNTS)}
        while full := len(below) // HASH_BYTES:
            if counts.pop(level, 0) != full:
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
        for extra, count in counts.items():
            self.say(0, Kind.TILE, f"{count} tiles too many at level {extra}")
