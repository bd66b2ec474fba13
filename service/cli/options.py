"""What many commands share: where the data is, how to show it, and how to reach it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from service.config import Settings, load_settings
from service.errors import BadConfig
from service.log import EventLog, open_log
from service.postgres import Database, open_database
from service.postgres.schema import check
from service.projections import Engine, Queries, catalogue

CAUGHT_UP_S = 60.0  # how long a command waits for the views

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where the embedded Postgres and keys are.", envvar="CALLTRAIL_DATA_DIR", show_default=False
    ),
]


def alone(context: typer.Context, chosen: bool) -> bool:
    """Refuse two forms at once."""
    if chosen and (context.params.get("as_json") or context.params.get("as_csv")):
        raise typer.BadParameter("--json and --csv exclude each other")
    return chosen


AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.", callback=alone)]
AsCsv = Annotated[
    bool, typer.Option("--csv", help="Comma-separated values, for spreadsheets.", callback=alone)
]
AsOf = Annotated[str | None, typer.Option(help="As of a position of the log, or of a time (ISO 8601).")]


def target(path: Path) -> Path:
    """A file to be written, before any work is done for it.

    Raises:
        BadConfig: there is no such folder.

    """
    if not path.parent.is_dir():
        raise BadConfig("--out", f"there is no folder {path.parent}", "Create it, or write elsewhere")
    return path


class Reading(NamedTuple):
    """What a command that only reads needs."""

    settings: Settings
    database: Database
    log: EventLog
    queries: Queries
    engine: Engine


@asynccontextmanager
async def reading(data_dir: Path | None) -> AsyncIterator[Reading]:
    """Open the database for reading; views are brought up to the log's end if no service does it."""
    settings = load_settings(data_dir=data_dir)
    async with open_database(settings) as database:
        await check(database)
        async with open_log(database, max_payload_bytes=settings.max_payload_bytes) as log:
            engine = Engine(database, log, catalogue())
            engine.loop.start()  # waits its turn where a service is folding already
            try:
                if not await engine.reached(await log.next_position() - 1, timeout_s=CAUGHT_UP_S):
                    typer.echo("calltrail: the views are behind the log: see calltrail doctor", err=True)
                yield Reading(settings, database, log, Queries(database), engine)
            finally:
                await engine.loop.stop()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command's coroutine, on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # not made for Windows
        asyncio.run(main)
    else:
        uvloop.run(main)
