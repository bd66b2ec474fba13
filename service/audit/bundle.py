"""The evidence bundle: one zip that a stranger can read, and verify with nothing but the log's public key.

    manifest.json       what was asked, by whom, and the SHA-256 of every file below
    report.html         for people; report.pdf beside it unless there are too many transfers
    transfers.csv       one row a transfer; transfers.jsonl the same for programs
    events.jsonl        the events they rest on: entry, payload, salt, and the proof under the checkpoint
    gaps.json           spans in which the record of an agent is not complete
    redactions.json     which of the events were redacted, by whom and why
    checkpoint          signed by the log; log.pub its public keys
    VERIFY.md           how to verify; verify_bundle.py and verify_proof.py a verifier of its own
    export.json         evidence (see `service.tlog.evidence`) of the event `AuditExported`

`AuditExported` names the manifest's SHA-256, and the manifest names every other file's. So the one signature
under ``export.json`` holds all of it together, while each event also proves itself under ``checkpoint``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import zipfile
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from service.audit.formats import Csv, JsonLines
from service.audit.record import flat, positions
from service.audit.redactions import Redactions
from service.audit.report import MOST_IN_PDF, About, HtmlReport, PdfReport, Report
from service.errors import BadInput
from service.log import EventLog, StoredEvent
from service.log.checkpoints import LogKeys
from service.log.proofs import Prover
from service.log.tree import entry_of
from service.tlog.encoding import encode_base64
from service.tlog.evidence import Evidence
from service.tlog.note import Note

FORMAT = "calltrail-bundle@v1"
MANIFEST, EXPORT = "manifest.json", "export.json"
PAGE = 200  # transfers whose events are read at once
PACKAGE = Path(__file__).parent


async def gather(
    folder: Path,
    rows: AsyncIterator[dict[str, Any]],
    about: About,
    *,
    log: EventLog,
    note: Note,
    keys: LogKeys,
) -> bytes:
    """Write every file of a bundle but the last into `folder`; return the manifest."""
    redactions = await Redactions.read(log)
    reports: list[Report] = [HtmlReport(folder / "report.html", about), *pdf_report(folder, about)]
    async with log.database.pool.acquire() as connection:
        prover = Prover(connection, about.size)
        with (
            closing(Csv(folder / "transfers.csv")) as csv,
            closing(JsonLines(folder / "transfers.jsonl")) as lines,
            (folder / "events.jsonl").open("wb") as events,
        ):
            async for page in in_pages(rows):
                for row in page:
                    redactions.look_at(row)
                    record = flat(row)
                    csv.write(record)
                    lines.write(record)
                    for report in reports:
                        report.add(row)
                needed = sorted({position for row in page for position in positions(row)})
                for event in await log.at(needed):
                    events.write(await proved(event, prover))
    for report in reports:
        report.close(redactions.found())
    write_json(folder / "gaps.json", about.gaps)
    write_json(folder / "redactions.json", redactions.found())
    (folder / "checkpoint").write_bytes(note.encode())
    (folder / "log.pub").write_text("".join(f"{key.encode()}\n" for key in keys.trusted))
    for page_of_ours in verifier_files():
        shutil.copy(page_of_ours, folder)
    return manifest_of(folder, about)


def seal(folder: Path, manifest: bytes, export: Evidence, target: Path) -> None:
    """Put the files of `folder`, their manifest and the export's own evidence into one zip."""
    (folder / MANIFEST).write_bytes(manifest)
    (folder / EXPORT).write_bytes(export.encode())
    first = (MANIFEST, EXPORT, "VERIFY.md", "report.html")
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: (name not in first, name))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in names:
            archive.write(folder / name, name)


def pdf_report(folder: Path, about: About) -> list[PdfReport]:
    """The report on paper, where it can be had."""
    try:
        return [PdfReport(folder / "report.pdf", about)] if about.transfers <= MOST_IN_PDF else []
    except BadInput:
        return []  # reportlab is not installed; report.html says the same


async def in_pages(rows: AsyncIterator[dict[str, Any]]) -> AsyncIterator[list[dict[str, Any]]]:
    page = []
    async for row in rows:
        page.append(row)
        if len(page) >= PAGE:
            yield page
            page = []
            await asyncio.sleep(0)  # others have their turn while a large export is made
    if page:
        yield page


async def proved(event: StoredEvent, prover: Prover) -> bytes:
    """One line of ``events.jsonl``: an event, and its proof without the checkpoint, which is there once."""
    fields: dict[str, Any] = {
        "position": event.position,
        "entry": entry_of(event).decode(),
        "proof": [encode_base64(sibling) for sibling in await prover.siblings(event.position)],
        "payload": encode_base64(event.payload),
    }
    if event.salt is not None:
        fields["salt"] = encode_base64(event.salt)
    return msgspec.json.encode(fields) + b"\n"


def manifest_of(folder: Path, about: About) -> bytes:
    """The manifest of what is in `folder`."""
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.name] = {"sha256": digest, "bytes": path.stat().st_size}
    said = about.document()
    del said["gaps"]
    return encode_json({"format": FORMAT, **said, "files": files})


def write_json(path: Path, document: Any) -> None:
    path.write_bytes(encode_json(document))


def encode_json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def verifier_files() -> list[Path]:
    """How to verify a bundle, and a program that does: inside an installed package, or from a checkout."""
    installed = PACKAGE / "_verifier"
    folder = installed if installed.is_dir() else PACKAGE.parent.parent / "docs"
    return [PACKAGE / "VERIFY.md", folder / "verify_bundle.py", folder / "verify_proof.py"]
