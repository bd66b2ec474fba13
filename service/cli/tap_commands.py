"""The tap on the command line: its options for `serve`; the rest is settings (`CALLTRAIL_TAP_…`)."""

from __future__ import annotations

from typing import Annotated

import typer

TapUrl = Annotated[
    str | None, typer.Option("--tap", help="Be a tap in front of this GWS: https://host:port.")
]
TapListen = Annotated[
    str | None, typer.Option(help="Where applications reach the tap, host:port; port 0 takes a free one.")
]
WhenLogFails = Annotated[
    str | None, typer.Option(help="pass: traffic flows unrecorded, with a recorded gap. refuse: 503.")
]
