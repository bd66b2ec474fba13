"""Commands about projections: rebuild, projections, bench projections."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from service.cli import show
from service.cli.options import AsCsv, AsJson, DataDir, reading, run
from service.config import load_settings
from service.errors import BadConfig, CheckFailed
from service.log import open_log
from service.postgres import open_database
from service.postgres.schema import upgrade
from service.projections import Difference, Rebuilder, Report
from service.projections.bench import bench

STOPPING_S = 30.0


class RateColumn(ProgressColumn):
    """Events a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s", style="dim")


def rebuild(
    projection: Annotated[list[str] | None, typer.Argument(help="Which; by default all.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the live rows first; exit status 1 if any differs.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build and compare, but change nothing.")
    ] = False,
    changed: Annotated[
        str | None,
        typer.Option(
            "--with", help="module:Class of a changed projection: build it, compare, throw it away."
        ),
    ] = None,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="Those with events that could not be folded, after a fix.")
    ] = False,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="Only delete replaced generations.")] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="How many; by default one a processor.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Build projections anew from the whole log, beside the live ones, and swap.

    Cut off, it goes on from its last checkpoint when it is run again.

    calltrail rebuild
    calltrail rebuild call_state --check
    calltrail rebuild --with my_module:MyCallState --check
    """
    if changed is not None and projection:
        raise BadConfig("--with", "names the projection already", "Leave the argument away")

    async def main() -> None:
        async with reading(data_dir) as at:
            if set_aside:
                names = [row["name"] for row in await at.engine.status() if row["set_aside"]]
                if not names:
                    show.console.print("No event is set aside.")
                    return
            else:
                names = [changed] if changed else projection or list(at.engine.projections)
            rebuilder = Rebuilder(at.database, at.log, shares=processes)
            if drop_old:
                dropped = await rebuilder.drop_old(names)
                show.print_json({"dropped": dropped})
                return
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                RateColumn(),
                TimeRemainingColumn(),
            )
            with Progress(
                *columns, console=show.console, disable=as_json or not show.console.is_terminal
            ) as bar:
                task = bar.add_task(", ".join(names), total=None)
                report = await rebuilder.rebuild(
                    names,
                    check=check or dry_run or changed is not None,
                    swap=not dry_run and changed is None,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
        show_report(report, as_json=as_json)

    run(main())


def show_report(report: Report, *, as_json: bool) -> None:
    """What a rebuild did; raises CheckFailed where it differs."""
    document: dict[str, Any] = {
        "generations": report.generations,
        "events": report.events,
        "processes": report.shares,
        "resumed": report.resumed,
        "swapped": report.swapped,
        "different": report.different,
        "differences": [difference_document(one) for one in report.differences],
        "set_aside": report.set_aside,
    }
    if as_json:
        show.print_json(document)
    else:
        for one in report.differences:
            what = f"only in the {one.only} rows" if one.only else str(fields_text(one))
            show.console.print(f"{one.projection} {key_text(one)}: {what}", markup=False, soft_wrap=True)
        names = ", ".join(f"{name} generation {number}" for name, number in report.generations.items())
        fate = "is live" if report.swapped else "was thrown away"
        show.console.print(f"{names}: folded {report.events} events, {fate}.", soft_wrap=True)
        if report.set_aside:
            show.console.print(f"{report.set_aside} events are set aside: calltrail projections")
    if report.different and any(report.different.values()):
        counts = ", ".join(f"{count} of {name}" for name, count in report.different.items() if count)
        raise CheckFailed(f"rows differ from the live ones: {counts}")


def key_text(difference: Difference) -> str:
    return " ".join(str(value) for value in difference.key.values())


def fields_text(difference: Difference) -> str:
    return ", ".join(f"{name} {live!r} → {new!r}" for name, (live, new) in difference.fields.items())


def difference_document(difference: Difference) -> dict[str, Any]:
    fields = {name: {"live": live, "new": new} for name, (live, new) in difference.fields.items()}
    return {
        "projection": difference.projection,
        "key": difference.key,
        "only": difference.only,
        "fields": fields,
    }


def projections(data_dir: DataDir = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """Show how far each projection has come, its lag, and the events it could not digest.

    calltrail projections
    """

    async def main() -> None:
        async with reading(data_dir) as at:
            rows = await at.engine.status()
        show.print_list(
            rows,
            lambda: show_projections(rows),
            document={"projections": rows},
            nothing="There is no projection.",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())


def show_projections(rows: list[dict[str, Any]]) -> None:
    names = ("name", "generation", "position", "lag_events", "lag_seconds", "beat_at", "set_aside")
    columns = ("projection", "gen", "position", "lag", "lag (s)", "alive at", "set aside")
    show.print_table("Projections", columns, ([row[name] for name in names] for row in rows))
    aside = [(row["name"], one["position"], one["reason"]) for row in rows for one in row["set_aside_events"]]
    if aside:
        show.print_table("Set aside", ("projection", "position", "reason"), aside)
        show.console.print("After a fix: calltrail rebuild --set-aside")


def bench_projections(
    events: Annotated[int, typer.Option(min=1_000, help="How many events the log gets.")] = 2_000_000,
    live: Annotated[int, typer.Option(min=10, help="Calls at a time.")] = 10_000,
    seconds: Annotated[float, typer.Option(help="How long the lag is measured.")] = 20.0,
    processes: Annotated[int | None, typer.Option(min=1, help="Of the rebuild.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure projections on a made-up log in a database of its own, which is deleted afterwards.

    calltrail bench projections --events 200000
    """

    async def main() -> None:
        with TemporaryDirectory(prefix="calltrail-projections-", ignore_cleanup_errors=True) as home:
            settings = load_settings(data_dir=Path(home))
            async with open_database(settings) as database:
                await upgrade(database.url)
                async with open_log(database, max_payload_bytes=settings.max_payload_bytes) as log:
                    result = await bench(
                        database,
                        log,
                        events=events,
                        live=live,
                        lag_seconds=seconds,
                        processes=processes,
                        say=(lambda _: None) if as_json else lambda line: show.console.print(f"{line} …"),
                    )
            if as_json:
                show.print_json(result)
            else:
                show.print_table("Projections", ("", ""), result.items())
            await stopped(Path(home))

    run(main())


async def stopped(home: Path) -> None:
    """Wait until the embedded server under `home`, which has lost its last user, has ended."""
    with suppress(TimeoutError):
        async with asyncio.timeout(STOPPING_S):
            while await asyncio.to_thread((home / "postgres" / "postmaster.pid").exists):  # noqa: ASYNC110 no event tells
                await asyncio.sleep(0.05)
