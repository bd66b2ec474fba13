"""Exports: transfers as a file, in the formats that auditors ask for. Each export is itself an event.

An export is made in one pass over a snapshot of the views, whatever its size: rows go to the file as they
come. It leaves `AuditExported` in the log, with the file's SHA-256, so that a file found later can be told
from one that was altered; a bundle carries the proof of that event with it (see `service.audit.bundle`).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from service import __version__
from service.audit.bundle import gather, seal
from service.audit.formats import Csv, JsonLines, Parquet, Writer
from service.audit.record import flat
from service.audit.redactions import Redactions
from service.audit.report import About, HtmlReport, PdfReport, Report
from service.audit.selection import Selection, Wanted, select
from service.errors import BadInput
from service.events import AUDIT_STREAM, AuditExported, encode
from service.log import EventLog, NewEvent, Producer, rfc3339
from service.log.checkpoints import Checkpoints
from service.tlog.checkpoint import Checkpoint

TABLES: dict[str, Callable[[Path], Writer]] = {"csv": Csv, "jsonl": JsonLines, "parquet": Parquet}
REPORTS: dict[str, Callable[[Path, About], Report]] = {"html": HtmlReport, "pdf": PdfReport}
BUNDLE = "bundle"
FORMATS = (BUNDLE, *TABLES, *REPORTS)


class Exported(NamedTuple):
    """What was made: how many transfers, the SHA-256 that the log keeps, and the position where it does."""

    transfers: int
    sha256: str
    position: int


@dataclass(frozen=True)
class Exporter:
    """Writes exports of one log. `progress` is told how many transfers are done, and of how many."""

    log: EventLog
    checkpoints: Checkpoints
    progress: Callable[[int, int], None] = lambda _done, _total: None

    async def export(self, wanted: Wanted, form: str, *, by: str, target: Path) -> Exported:
        """Write the transfers `wanted` to `target`, in one of `FORMATS`, on behalf of `by`.

        Raises:
            BadInput: there is no such format, it cannot hold so much, or nobody asks.

        """
        if form not in FORMATS:
            raise BadInput("format", f"is {form!r}", f"Choose one of {', '.join(FORMATS)}")
        if not by.strip():
            raise BadInput("by", "is empty", "Say who asks: it is kept with the export")
        async with select(self.log.database, wanted) as selection:
            about = await describe(selection, wanted, by)
            if form == BUNDLE:
                return await self._bundle(selection, about, target)
            if form in REPORTS:
                await self._report(selection, about, form, target)
            else:
                with closing(TABLES[form](target)) as table:
                    async for row in self._rows(selection, about):
                        table.write(flat(row))
        sha256 = sha256_of(target)
        return Exported(about.transfers, sha256, await self._record(about, form, sha256))

    async def _report(self, selection: Selection, about: About, form: str, target: Path) -> None:
        report = REPORTS[form](target, about)
        redactions = await Redactions.read(self.log)
        async for row in self._rows(selection, about):
            redactions.look_at(row)
            report.add(row)
        report.close(redactions.found())

    async def _bundle(self, selection: Selection, about: About, target: Path) -> Exported:
        note = await self.checkpoints.sign()
        checkpoint = Checkpoint.parse(note.text)
        about = replace(about, origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root.hex())
        with TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
            rows = self._rows(selection, about)
            manifest = await gather(
                Path(folder), rows, about, log=self.log, note=note, keys=self.checkpoints.keys
            )
            sha256 = hashlib.sha256(manifest).hexdigest()
            position = await self._record(about, BUNDLE, sha256)
            seal(Path(folder), manifest, await self.checkpoints.prove(position), target)
        return Exported(about.transfers, sha256, position)

    async def _rows(self, selection: Selection, about: About) -> AsyncIterator[dict[str, Any]]:
        done = 0
        async for row in selection.rows():
            yield row
            done += 1
            self.progress(done, about.transfers)

    async def _record(self, about: About, form: str, sha256: str) -> int:
        event = AuditExported(about.by, form, about.asked, about.transfers, sha256)
        [position] = await self.log.append(
            [NewEvent(Producer.new().key, AUDIT_STREAM, event.kind(), encode(event))]
        )
        return position


async def describe(selection: Selection, wanted: Wanted, by: str) -> About:
    """What a report says before its first row."""
    outcomes = await selection.outcomes()
    since, until = wanted.transfers.since, wanted.transfers.until
    return About(
        since_text=rfc3339(since) if since else "the beginning",
        until_text=rfc3339(until) if until else "now",
        asked=wanted.text,
        by=by,
        created=rfc3339(datetime.now(UTC)),
        version=__version__,
        transfers=sum(outcomes.values()),
        population=await selection.population(),
        outcomes=outcomes,
        gaps=selection.gaps(since, until),
    )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
