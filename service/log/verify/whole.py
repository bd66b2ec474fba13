"""A verification from its beginning to its report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import asyncpg

from service.errors import TlogError
from service.log import sql
from service.log.verify.judge import Judge
from service.log.verify.report import Difference, Kind, Report
from service.log.verify.workers import check_chunks
from service.postgres import Database, database_errors
from service.tlog.checkpoint import Checkpoint, verify_checkpoint
from service.tlog.note import Ed25519Verifier, Note


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
            kept = await connection.fetch(sql.KEPT_CHECKPOINTS)  # before the head, which grows meanwhile
            head = await connection.fetchrow(sql.HEAD_AND_BEYOND)
            assert head is not None
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
