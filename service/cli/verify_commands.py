"""`calltrail verify`: the whole log, or one file of evidence."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from service.audit.verification import record, verified
from service.audit.verify import Bundle, verify_bundle
from service.cli import show
from service.cli.log_commands import Keys, opened, progress_bar, trusted_keys
from service.cli.options import AsJson, DataDir, run
from service.config import Settings, load_settings
from service.errors import BadConfig, CalltrailError, TlogError
from service.events import LogVerified
from service.log import open_log
from service.log.verify import Report, verify_log
from service.postgres import Database
from service.tlog.evidence import Evidence
from service.tlog.note import Ed25519Verifier, Note

SHOWN = 50  # differences, or redacted positions
TAMPERED, UNKNOWN = 1, 2


def verify(
    file: Annotated[
        Path | None,
        typer.Argument(help="Evidence made by `calltrail prove`, or a bundle; without it, the whole log."),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that you have kept elsewhere; may be repeated.")
    ] = None,
    key: Keys = None,
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Do not write into the log that it was verified.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Verify the whole log, or one file of evidence. Exit status: 0 intact, 1 tampered, 2 could not check.

    That the whole log was verified, and with what result, is recorded in it where it can be.

    calltrail verify --against checkpoint-of-last-month.txt
    calltrail verify transfers.zip --key 'calltrail.log/…+…+…'
    calltrail verify event-42.json --key 'calltrail.log/…+…+…'
    """
    try:
        if file is not None:
            verify_file(file, trusted_keys(load_settings(data_dir=data_dir), key), as_json=as_json)
            return
        found: list[Report] = []
        run(verify_all(found, against or [], key, data_dir, recorded=not no_record, as_json=as_json))
    except (CalltrailError, OSError) as error:
        typer.echo(f"calltrail: could not check: {error}", err=True)
        raise typer.Exit(UNKNOWN) from None
    if not found[0].intact:
        raise typer.Exit(TAMPERED)


def verify_file(file: Path, keys: list[Ed25519Verifier], *, as_json: bool) -> None:
    """Check evidence without any database."""
    if not keys:
        raise BadConfig("--key", "no public key is known", "Give the log's vkey, from its log.pub")
    try:
        if zipfile.is_zipfile(file):
            show_bundle(verify_bundle(file, keys), as_json=as_json)
            return
        verdict = Evidence.decode(file.read_bytes()).verify(keys[-1].key.name, keys)
    except TlogError as error:
        typer.echo(f"NOT PROVED: {error}", err=True)
        raise typer.Exit(TAMPERED) from None
    proved = {
        "position": verdict.entry.position,
        "recorded_at": verdict.entry.recorded_at,
        "stream": verdict.entry.stream,
        "kind": verdict.entry.kind,
        "payload_proved": verdict.payload_proved,
        "log": verdict.checkpoint.origin,
        "size": verdict.checkpoint.size,
    }
    if as_json:
        show.print_json({"proved": True, **proved})
    else:
        show.print_table("Proved", ("", ""), list(proved.items()))


def show_bundle(bundle: Bundle, *, as_json: bool) -> None:
    """Say what a bundle proved to hold."""
    proved = {
        "transfers": bundle.transfers,
        "events": bundle.events,
        "redacted": bundle.redacted,
        "asked": bundle.asked,
        "by": bundle.by,
        "created": bundle.created,
        "log": bundle.checkpoint.origin,
        "size": bundle.checkpoint.size,
    }
    if as_json:
        show.print_json({"intact": True, **proved})
    else:
        show.print_table("Intact", ("", ""), list(proved.items()))


async def note_verified(settings: Settings, database: Database, fact: LogVerified) -> int | None:
    """Write into the log that it was verified; None, and a word, where that cannot be."""
    try:
        async with open_log(database, max_payload_bytes=settings.max_payload_bytes) as log:
            return await record(log, fact)
    except CalltrailError as error:
        typer.echo(f"calltrail: that it was verified could not be recorded: {error}", err=True)
        return None


async def verify_all(
    found: list[Report],
    against: list[Path],
    key: list[str] | None,
    data_dir: Path | None,
    *,
    recorded: bool,
    as_json: bool,
) -> None:
    async with opened(data_dir) as (settings, database):
        keys = trusted_keys(settings, key)
        begun = time.perf_counter()
        with progress_bar(hidden=as_json) as bar:
            task = bar.add_task("verifying", total=None)
            report = await verify_log(
                database,
                origin=keys[-1].key.name if keys else None,
                trusted=keys,
                against=[Note.decode(path.read_bytes()) for path in against],
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        found.append(report)
        position = None
        if recorded:
            position = await note_verified(settings, database, verified(report, time.perf_counter() - begun))
    if as_json:
        show.print_json(
            {
                "intact": report.intact,
                "size": report.size,
                "root": report.root.hex(),
                "checkpoints": report.checkpoints,
                "redacted": report.redacted,
                "recorded": position,
                "differences": [one._asdict() for one in report.differences],
            }
        )
        return
    if report.differences:
        columns = ("position", "kind", "what")
        show.print_table("TAMPERED: first difference first", columns, report.differences[:SHOWN])
    else:
        show.console.print(f"Intact: {report.size:,} events, root {report.root.hex()}.", soft_wrap=True)
    signatures = "signatures checked" if keys else "no public key known: signatures not checked"
    show.console.print(f"Compared with {report.checkpoints} checkpoints ({signatures}).", soft_wrap=True)
    if report.redacted:
        shown = ", ".join(map(str, report.redacted[:SHOWN]))
        more = " …" if len(report.redacted) > SHOWN else ""
        show.console.print(
            f"Redacted, as the log records: {len(report.redacted)} events, at {shown}{more}. "
            "By whom and why: calltrail redactions",
            soft_wrap=True,
        )
