"""The filter of transfers on the command line: the same options for every command that takes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Annotated, Any

import typer

from service.analytics import TransferFilter
from service.api.filters import read_pair
from service.api.moments import zoned

WANTED = "wanted"


def read_options(
    call: Annotated[str | None, typer.Option(help="Of this call.")] = None,
    agent: Annotated[str | None, typer.Option(help="By this agent, or unknown.")] = None,
    destination: Annotated[str | None, typer.Option(help="To this number, or unknown.")] = None,
    reason: Annotated[str | None, typer.Option(help="For this reason, or unknown.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="confirmed, failed, rejected, in_doubt, observed …")
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="key=value of userData; may be repeated.")] = None,
    commanded: Annotated[
        bool | None,
        typer.Option("--commanded/--observed", help="Commanded through calltrail, or only observed."),
    ] = None,
    in_doubt: Annotated[bool, typer.Option("--in-doubt", help="Those that a person may settle.")] = False,
    in_gap: Annotated[bool, typer.Option("--gap", help="Those during which the record has a gap.")] = False,
    since: Annotated[
        datetime | None, typer.Option("--since", "--from", help="At or after this time, ISO 8601, in UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--until", "--to", help="Before this time, ISO 8601, in UTC.")
    ] = None,
) -> TransferFilter:
    """The filter that a command line asks for.

    Raises:
        BadInput: names the option that is wrong.

    """
    return TransferFilter(
        call_id=call,
        agent=agent,
        destination=destination,
        reason=reason,
        outcome=outcome,
        user_data=tuple(map(read_pair, data or ())),
        commanded=commanded,
        in_doubt=True if in_doubt else None,
        overlaps_gap=True if in_gap else None,
        since=zoned(since),
        until=zoned(until),
    )


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the filter's options in place of its parameter `wanted`, which gets the filter."""
    options = list(inspect.signature(read_options, eval_str=True).parameters.values())
    own = inspect.signature(command, eval_str=True).parameters
    assert WANTED in own

    @wraps(command)
    def filtering(**given: Any) -> None:
        wanted = read_options(**{option.name: given.pop(option.name) for option in options})
        command(**given, wanted=wanted)

    shown = [*options, *(one for name, one in own.items() if name != WANTED)]
    filtering.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # what typer reads
    filtering.__annotations__ = {one.name: one.annotation for one in shown}
    return filtering
