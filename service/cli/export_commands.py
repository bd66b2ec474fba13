"""`calltrail export audit`: transfers as a file that carries its own proof, or as a table."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from service.analytics import TransferFilter
from service.audit.export import BUNDLE, FORMATS, Exporter
from service.audit.selection import Wanted
from service.cli import show
from service.cli.filtering import filtered
from service.cli.log_commands import KeyFile, progress_bar
from service.cli.options import AsJson, DataDir, reading, run, target
from service.log.checkpoints import Checkpoints, load_keys


@filtered
def audit(
    wanted: TransferFilter,
    form: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = BUNDLE,
    sample: Annotated[int | None, typer.Option(min=1, help="Only so many, drawn at random.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same sample.")] = 0,
    by: Annotated[str | None, typer.Option(help="Who asks; by default the user's name here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write.")] = None,
    key_file: KeyFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Export transfers for an audit. That it was done is recorded, with the file's SHA-256.

    calltrail export audit --from 2026-11-01 --to 2026-12-01
    calltrail export audit --format csv --reason Escalation --out escalations.csv
    calltrail export audit --sample 25 --seed 7
    """

    async def main() -> None:
        file = target(out or Path(f"transfers.{'zip' if form == BUNDLE else form}"))
        async with reading(data_dir) as at:
            keys = load_keys(at.settings.data_dir, key_file)
            with progress_bar(hidden=as_json) as bar:
                task = bar.add_task("exporting", total=None)
                exporter = Exporter(
                    at.log,
                    Checkpoints(at.database, keys),
                    lambda done, total: bar.update(task, completed=done, total=total),
                )
                made = await exporter.export(
                    Wanted(wanted, sample, seed), form, by=by or getpass.getuser(), target=file
                )
        if as_json:
            show.print_json({"file": str(file), **made._asdict()})
            return
        show.console.print(
            f"{file}: {made.transfers:,} transfers, {file.stat().st_size:,} bytes. "
            f"Recorded at position {made.position}.",
            soft_wrap=True,
        )
        if form == BUNDLE:
            show.console.print(f"Check it with calltrail verify {file}", soft_wrap=True)
            show.console.print(f"The log's public key: {keys.trusted[-1].encode()}", soft_wrap=True)

    run(main())
