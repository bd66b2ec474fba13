"""Commands on transfers: settle one, and measure them."""

from __future__ import annotations

import getpass
from typing import Annotated
from uuid import UUID

import typer

from service.api.commands import decision
from service.app import open_application
from service.cli import show
from service.cli.options import AsJson, DataDir, run
from service.config import load_settings
from service.errors import BadConfig
from service.messaging import asyncapi_document

OUTCOMES = ("confirmed", "failed", "abandoned")


def settle(
    transfer: Annotated[str, typer.Argument(help="The transfer's id.")],
    outcome: Annotated[str, typer.Option(help="confirmed, failed or abandoned.")],
    why: Annotated[str, typer.Option(help="On what grounds.")],
    by: Annotated[str | None, typer.Option(help="Who decides; by default the user logged in.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Decide what became of a transfer that evidence could not settle; your name goes on record with it.

    calltrail transfers --in-doubt
    calltrail transfer settle 01a2… --outcome confirmed --why "the caller says so"
    """
    if outcome not in OUTCOMES:
        raise BadConfig("--outcome", f"is {outcome!r}", f"Write one of {', '.join(OUTCOMES)}")
    if not why.strip():
        raise BadConfig("--why", "is empty", "Say on what grounds")
    try:
        transfer_id = UUID(transfer)
    except ValueError:
        raise BadConfig("transfer", f"{transfer!r} is no id", "See calltrail transfers --in-doubt") from None

    async def main() -> None:
        async with open_application(load_settings(data_dir=data_dir), agents=[]) as application:
            settled = await application.handler.settle(
                transfer_id, decision(transfer_id, outcome, by or getpass.getuser(), why)
            )
        state = settled.transfer.state
        if as_json:
            show.print_json({"transfer_id": transfer_id, "state": state})
        else:
            show.console.print(f"Transfer {transfer_id} is {state}.", soft_wrap=True)

    run(main())


def asyncapi() -> None:
    """Print the AsyncAPI document of the commands that are taken by message.

    calltrail asyncapi > asyncapi.json
    """
    typer.echo(asyncapi_document())
