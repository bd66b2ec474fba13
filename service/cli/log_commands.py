"""Commands about the log itself: verify, prove, checkpoint, bench log, db train."""

from __future__ import annotations

import asyncio
import os
import tempfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.engine import URL, make_url

from service.audit.verify import Bundle, verify_bundle
from service.cli import show
from service.cli.bench import run_bench
from service.cli.options import AsJson, DataDir, run, target
from service.config import Settings, load_settings
from service.errors import BadConfig, CalltrailError, TlogError
from service.log import open_log
from service.log.checkpoints import KEY_FILE, PUBLIC_FILE, Checkpoints, add_key, load_keys, read_public
from service.log.training import train_on_log
from service.log.verify import Report, verify_log
from service.postgres import Database, open_database, parse_url
from service.postgres.embedded import EmbeddedPostgres
from service.postgres.schema import check
from service.tlog.evidence import Evidence
from service.tlog.keys import VerifierKey
from service.tlog.note import Ed25519Verifier, Note

SHOWN = 50  # differences, or redacted positions
INTACT, TAMPERED, UNKNOWN = 0, 1, 2

KeyFile = Annotated[
    Path | None, typer.Option(help="The log's signer keys; by default in the data directory.")
]
Keys = Annotated[
    list[str] | None, typer.Option("--key", help="A public key (vkey) to trust; may be repeated.")
]


@asynccontextmanager
async def opened(data_dir: Path | None) -> AsyncIterator[tuple[Settings, Database]]:
    """The settings and the database, its schema checked; nothing is folded or recorded."""
    settings = load_settings(data_dir=data_dir)
    async with open_database(settings) as database:
        await check(database)
        yield settings, database


def trusted_keys(settings: Settings, given: list[str] | None) -> list[Ed25519Verifier]:
    """The keys that were given, or those of the data directory."""
    keys = [VerifierKey.decode(text) for text in given or ()] or read_public(settings.data_dir / PUBLIC_FILE)
    return [Ed25519Verifier(key) for key in keys]


def verify(
    file: Annotated[
        Path | None,
        typer.Argument(help="Evidence made by `calltrail prove`, or a bundle; without it, the whole log."),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that you have kept elsewhere; may be repeated.")
    ] = None,
    key: Keys = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Verify the whole log, or one file of evidence. Exit status: 0 intact, 1 tampered, 2 could not check.

    calltrail verify --against checkpoint-of-last-month.txt
    calltrail verify transfers.zip --key 'calltrail.log/…+…+…'
    calltrail verify event-42.json --key 'calltrail.log/…+…+…'
    """
    try:
        if file is not None:
            verify_file(file, trusted_keys(load_settings(data_dir=data_dir), key), as_json=as_json)
            return
        found: list[Report] = []
        run(verify_all(found, against or [], key, data_dir, as_json=as_json))
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


async def verify_all(
    found: list[Report], against: list[Path], key: list[str] | None, data_dir: Path | None, *, as_json: bool
) -> None:
    async with opened(data_dir) as (settings, database):
        keys = trusted_keys(settings, key)
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
    if as_json:
        show.print_json(
            {
                "intact": report.intact,
                "size": report.size,
                "root": report.root.hex(),
                "checkpoints": report.checkpoints,
                "redacted": report.redacted,
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


def progress_bar(*, hidden: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=show.console, disable=hidden, transient=True)


def prove(
    position: Annotated[int, typer.Argument(help="The event's position.")],
    out: Annotated[Path | None, typer.Option(help="Where to write; by default event-POSITION.json.")] = None,
    key_file: KeyFile = None,
    data_dir: DataDir = None,
) -> None:
    """Write one file that proves one event to anybody who trusts the log's public key.

    calltrail prove 42
    """

    async def main() -> None:
        file = target(out or Path(f"event-{position}.json"))
        async with opened(data_dir) as (settings, database):
            keys = load_keys(settings.data_dir, key_file)
            evidence = await Checkpoints(database, keys).prove(position)
        file.write_bytes(evidence.encode())
        show.console.print(f"{file}: check it with calltrail verify {file}", soft_wrap=True)
        show.console.print(f"The log's public key: {keys.trusted[-1].encode()}", soft_wrap=True)

    run(main())


def checkpoint(
    rotate_key: Annotated[bool, typer.Option(help="Add a new key first; both sign from now on.")] = False,
    key_file: KeyFile = None,
    data_dir: DataDir = None,
) -> None:
    """Sign the log as it stands, keep the checkpoint, and write it to standard output.

    calltrail checkpoint > checkpoint.txt
    """

    async def main() -> None:
        async with opened(data_dir) as (settings, database):
            keys = load_keys(settings.data_dir, key_file)
            if rotate_key:
                add_key(key_file or settings.data_dir / KEY_FILE, keys.origin)
                keys = load_keys(settings.data_dir, key_file)
            note = await Checkpoints(database, keys).sign()
        typer.echo(note.encode().decode(), nl=False)

    run(main())


def train_dictionary(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Train a dictionary on the log's newest payloads, and use it from now on if it is better.

    calltrail db train
    """

    async def main() -> None:
        async with (
            opened(data_dir) as (settings, database),
            open_log(database, max_payload_bytes=settings.max_payload_bytes) as log,
        ):
            training, in_use = await train_on_log(log)
        result: dict[str, Any] = {
            "codec": in_use,
            "new": training.is_better,
            "samples": training.samples,
            "bytes_before": round(training.bytes_before, 1),
            "bytes_after": round(training.bytes_after, 1),
        }
        if as_json:
            show.print_json(result)
        else:
            show.print_table("Dictionary", ("", ""), list(result.items()))

    run(main())


def bench_log(
    events: Annotated[int, typer.Option(min=50_000, help="How many events the log is to hold.")] = 1_000_000,
    sag: Annotated[
        bool, typer.Option("--sag", help="Let it grow to ten million afterwards, and append there too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the log against what Postgres can do without it, in a database of its own, fsync on.

    calltrail bench log --events 1000000
    """

    async def main() -> None:
        def say(what: str) -> None:
            if not as_json:
                show.console.print(what)

        async with bench_server() as url:
            result = await run_bench(url, events, say, sag=sag)
        if as_json:
            show.print_json(result)
            return
        rows = [(name, f"{value:,.3f}") for name, value in result.items() if isinstance(value, int | float)]
        show.print_table(f"The log at {events:,} events", ("", ""), rows)
        names = (
            "events",
            "append_concurrent_events_per_s",
            "append_vs_copy_concurrent",
            "append_vs_copy_bulk",
        )
        stages = [[f"{stage[name]:,.2f}" for name in names] for stage in result["growth"]]
        show.print_table("As it grows", names, stages)

    run(main())


@asynccontextmanager
async def bench_server() -> AsyncIterator[URL]:
    """The configured server, or an embedded one in a temporary folder; both as durable as in production."""
    settings = load_settings()
    if settings.database_url:
        yield parse_url(settings.database_url)
        return
    with tempfile.TemporaryDirectory(prefix="calltrail-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 the server may run under another account
        server = EmbeddedPostgres(Path(folder))
        yield make_url(await asyncio.to_thread(server.start))
        server.release()
