"""The tap on the command line: its options for `serve`; the rest is settings (`CALLTRAIL_TAP_…`)."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import show
from service.cli.options import AsJson, run

TapUrl = Annotated[
    str | None, typer.Option("--tap", help="Be a tap in front of this GWS: https://host:port.")
]
TapListen = Annotated[
    str | None, typer.Option(help="Where applications reach the tap, host:port; port 0 takes a free one.")
]
WhenLogFails = Annotated[
    str | None, typer.Option(help="pass: traffic flows unrecorded, with a recorded gap. refuse: 503.")
]


def bench_tap(
    clients: Annotated[int, typer.Option(min=1, help="How many clients with held polls.")] = 3_000,
    rate: Annotated[int, typer.Option(min=1, help="Requests per second besides.")] = 1_000,
    seconds: Annotated[float, typer.Option(min=1, help="For how long in all.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Measure what the tap adds to a request, and what a client costs it.

    calltrail bench tap --clients 3000 --rate 1000
    """

    async def main() -> None:
        from service.cli.tap_bench import measure

        figures = await measure(clients, per_second=rate, seconds=seconds)
        if as_json:
            show.print_json(figures)
        else:
            show.print_table("Tap", ("figure", "value"), figures.items())

    run(main())
