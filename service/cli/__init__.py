"""The command line: `calltrail`.

Exit status: 0 done; 1 the answer is no (not found, refused, a check failed); 2 the command or a setting is
wrong; 3 it could not be tried (the database or GWS is away).
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from service import __version__
from service.cli import (
    analytics_commands,
    bench_faces,
    bench_transfers,
    demo,
    doctor,
    export_commands,
    log_commands,
    logs,
    projection_commands,
    reading,
    recorder_commands,
    redaction_commands,
    replay_commands,
    running,
    tap_commands,
    transfer_commands,
    verify_commands,
)
from service.errors import BadInput, CalltrailError, DatabaseError, GwsError

NO, WRONG, AWAY = 1, 2, 3

app = typer.Typer(
    help="Who transferred which call where, and why: recorded, replayable, provable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
db = typer.Typer(help="The database.", no_args_is_help=True)
transfer = typer.Typer(
    help="One transfer: `transfer ID` shows its trail; or send one, or settle one.",
    no_args_is_help=True,
    cls=analytics_commands.ShowById,
)
hold = typer.Typer(help="Legal holds: what they cover is not redacted.", no_args_is_help=True)
export = typer.Typer(help="Take transfers out of the record, as files.", no_args_is_help=True)
bench = typer.Typer(help="Measure it on this machine, on made-up data.", no_args_is_help=True)


@export.callback()
def exporting() -> None:
    """Say that exports are a group, however few there are."""


@bench.callback()
def measuring() -> None:
    """Say that benchmarks are a group, however few there are."""


app.command()(demo.demo)
app.command()(running.serve)
app.command()(running.simulate)
app.command()(reading.calls)
app.command()(reading.history)
app.command()(analytics_commands.transfers)
app.command()(analytics_commands.reasons)
app.command()(doctor.doctor)
app.command()(recorder_commands.sessions)
app.command()(reading.coverage)
app.command()(projection_commands.rebuild)
app.command()(projection_commands.projections)
app.command()(replay_commands.replay)
app.command()(replay_commands.diff)
app.command()(verify_commands.verify)
app.command()(log_commands.prove)
app.command()(log_commands.checkpoint)
app.command()(redaction_commands.redact)
app.command()(redaction_commands.redactions)
app.command()(transfer_commands.asyncapi)
app.add_typer(transfer, name="transfer")
transfer.command("send")(running.send)
transfer.command("show")(analytics_commands.trail)
transfer.command("settle")(transfer_commands.settle)
app.add_typer(hold, name="hold")
hold.command("add")(redaction_commands.add_hold)
hold.command("release")(redaction_commands.release)
hold.command("list")(redaction_commands.holds)
app.add_typer(export, name="export")
export.command("audit")(export_commands.audit)
app.add_typer(db, name="db")
db.command("upgrade")(running.upgrade)
db.command("train")(log_commands.train_dictionary)
app.add_typer(bench, name="bench")
bench.command("log")(log_commands.bench_log)
bench.command("tap")(tap_commands.bench_tap)
bench.command("recorder")(recorder_commands.bench_recorder)
bench.command("transfers")(bench_transfers.transfers)
bench.command("faces")(bench_faces.faces)
bench.command("projections")(projection_commands.bench_projections)


@app.callback()
def common(
    log_level: Annotated[
        str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", envvar="CALLTRAIL_LOG_LEVEL")
    ] = "WARNING",
    version: Annotated[bool, typer.Option("--version", help="Say the version and end.")] = False,
) -> None:
    """Options for every command."""
    if version:
        typer.echo(f"calltrail {__version__}")
        raise typer.Exit
    if log_level.upper() not in logs.LEVELS:
        raise typer.BadParameter(f"--log-level is one of {', '.join(logs.LEVELS)}")
    logs.configure(log_level.upper())


def main() -> None:
    """Run the command line; errors of ours end it with one sentence and an exit status."""
    try:
        app()
    except CalltrailError as error:
        sys.stderr.write(f"calltrail: {error}\n")
        sys.exit(exit_status(error))


def exit_status(error: CalltrailError) -> int:
    if isinstance(error, BadInput):
        return WRONG
    return AWAY if isinstance(error, DatabaseError | GwsError) else NO
