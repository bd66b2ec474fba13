"""Commands about the recorder: sessions, bench recorder."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import show
from service.cli.options import AsCsv, AsJson, DataDir, run
from service.config import load_settings
from service.postgres import open_database
from service.postgres.schema import check
from service.recorder import list_sessions


def sessions(
    status: Annotated[
        str | None, typer.Option(help="Only those: open, retrying, lost, refused, starting, unattended …")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show where each agent's CometD session stands, and why.

    calltrail sessions
    calltrail sessions --status refused --json
    """

    async def main() -> None:
        async with open_database(load_settings(data_dir=data_dir)) as database:
            await check(database)
            rows = await list_sessions(database, status)
        columns = ("agent", "status", "delivered", "nothing missed up to", "reason")
        names = ("agent", "status", "delivered", "alive_at", "reason")
        show.print_list(
            rows,
            lambda: show.print_table("Sessions", columns, ([row[name] for name in names] for row in rows)),
            document={"sessions": rows},
            nothing="No agent is recorded. Name some: calltrail serve --agents-file …",
            as_json=as_json,
            as_csv=as_csv,
        )

    run(main())


def bench_recorder(
    sessions: Annotated[int, typer.Option(min=1, help="How many agents.")] = 5_000,
    rate: Annotated[int, typer.Option(min=1, help="Notifications per second, over all agents.")] = 1_000,
    seconds: Annotated[int, typer.Option(min=1, help="For how long.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Measure one process with many sessions: memory for each, and how soon a notification is durable.

    calltrail bench recorder --sessions 5000
    """

    async def main() -> None:
        from service.cli.recorder_bench import measure

        figures = await measure(sessions, per_second=rate, seconds=seconds)
        if as_json:
            show.print_json(figures)
        else:
            show.print_table("Recorder", ("figure", "value"), figures.items())

    run(main())
