"""Commands about the log itself: prove, checkpoint, bench log, db train."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.engine import URL, make_url

from service.cli import show
from service.cli.bench import needed_bytes, run_bench
from service.cli.options import AsJson, DataDir, run, target
from service.config import Settings, load_settings
from service.errors import BadConfig
from service.log import open_log
from service.log.checkpoints import KEY_FILE, PUBLIC_FILE, Checkpoints, add_key, load_keys, read_public
from service.log.training import train_on_log
from service.postgres import Database, open_database, parse_url
from service.postgres.embedded import EmbeddedPostgres
from service.postgres.schema import check
from service.tlog.keys import VerifierKey
from service.tlog.note import Ed25519Verifier

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
    grow_to: Annotated[
        int, typer.Option(help="Let it grow to so many events afterwards, and append there too.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the log against what Postgres can do without it, in a database of its own, fsync on.

    calltrail bench log --events 1000000

    calltrail bench log --events 100000 --grow-to 10000000
    """

    async def main() -> None:
        begin = perf_counter()

        def say(what: str) -> None:
            typer.echo(f"{perf_counter() - begin:6.1f} s  {what}", err=True)

        needed = needed_bytes(max(events, grow_to))
        say(f"needs {needed / (1 << 30):.1f} GiB of disk")
        async with bench_server(needed) as url:
            result = await run_bench(url, events, say, grow_to=grow_to)
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
async def bench_server(needed: int) -> AsyncIterator[URL]:
    """The configured server, or an embedded one in a temporary folder; both as durable as in production.

    Raises:
        BadConfig: the folder has not the bytes that are needed.

    """
    settings = load_settings()
    if settings.database_url:
        yield parse_url(settings.database_url)
        return
    with tempfile.TemporaryDirectory(prefix="calltrail-bench-", ignore_cleanup_errors=True) as folder:
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise BadConfig(
                "TMPDIR",
                f"has {free / (1 << 30):.1f} GiB free below {folder}, less than this takes",
                "Set it to a folder with more, or measure fewer events",
            )
        os.chmod(folder, 0o755)  # noqa: PTH101, S103 the server may run under another account
        server = EmbeddedPostgres(Path(folder))
        yield make_url(await asyncio.to_thread(server.start))
        server.release()
