"""Commands that run something: serve, simulate, db, transfer send."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from service.api.serving import serving
from service.app import check_host, open_application, running
from service.cli import show
from service.cli.options import AsJson, DataDir, run
from service.cli.tap_commands import TapListen, TapUrl, WhenLogFails
from service.config import load_settings
from service.errors import BadConfig
from service.postgres import open_database
from service.postgres.schema import head_revision
from service.postgres.schema import upgrade as upgrade_schema
from service.simulator import run as run_simulator
from service.transfers import build_body, parse_command
from service.web import create_site

DOOR = "command line"


def serve(
    gws_url: Annotated[str | None, typer.Option(help="GWS, without /api/v2.")] = None,
    agents_file: Annotated[Path | None, typer.Option(help="TOML file of the agents to record.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="embedded, or a NATS URL; without it, no broker.")
    ] = None,
    insecure: Annotated[bool, typer.Option(help="Listen beyond loopback; plain HTTP to GWS.")] = False,
    tap: TapUrl = None,
    tap_listen: TapListen = None,
    when_log_fails: WhenLogFails = None,
    data_dir: DataDir = None,
) -> None:
    """Record, project, take commands and serve the API, until SIGTERM or Ctrl-C.

    calltrail serve --gws-url http://127.0.0.1:8080 --agents-file agents.toml
    calltrail serve --tap https://gws.example --tap-listen 127.0.0.1:8383
    CALLTRAIL_USER=15000 CALLTRAIL_PASSWORD=… calltrail serve --broker embedded
    """

    async def main() -> None:
        settings = load_settings(
            agents_file=agents_file,
            host=host,
            port=port,
            broker=broker,
            insecure=insecure or None,
            gws_url=gws_url or tap,
            tap=tap,
            tap_listen=tap_listen,
            when_log_fails=when_log_fails,
            data_dir=data_dir,
        )
        check_host(settings)
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with (
            open_application(settings) as application,
            running(application, keep_sessions=True) as messaging,
            serving(create_site(application.services), settings.host, settings.port) as url,
        ):
            show.console.print(
                f"calltrail serves {url}, recording {len(application.accesses)} agents", soft_wrap=True
            )
            if application.tap is not None:
                show.console.print(f"tap {application.tap.url} → {settings.tap}", soft_wrap=True)
            if messaging is not None:
                show.console.print(f"broker {messaging.url}", soft_wrap=True)
            await stopping.wait()

    run(main())


def simulate(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; keep it loopback.")] = "127.0.0.1",
    seed: Annotated[int, typer.Option(help="The same seed gives the same ids and traffic.")] = 1,
    agents: Annotated[
        int, typer.Option(min=3, help="Agents 15000, 15001, …; password secret-<number>.")
    ] = 10,
    busy: Annotated[bool, typer.Option(help="Let calls come and go by themselves.")] = False,
) -> None:
    """Run a GWS of our own on loopback: agents, calls, CometD and REST, and a count of what it executed.

    calltrail simulate --port 8080 --busy
    """
    run_simulator(host=host, port=port, seed=seed, agent_count=agents, busy=busy)


def upgrade(data_dir: DataDir = None) -> None:
    """Bring the database's schema to this program's revision.

    calltrail db upgrade
    """

    async def main() -> None:
        async with open_database(load_settings(data_dir=data_dir)) as database:
            await upgrade_schema(database.url)
        show.console.print(f"The schema is at revision {head_revision()}.")

    run(main())


def send(
    call: Annotated[str, typer.Argument(help="The call's id.")],
    agent: Annotated[str, typer.Option(help="The agent who has the call.")],
    to: Annotated[str, typer.Option(help="The number to transfer to.")],
    location: Annotated[str | None, typer.Option(help="Where the destination is.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="userData as key=value; may be repeated.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key; by default a new one.")] = None,
    gws_url: Annotated[str | None, typer.Option(help="GWS, without /api/v2.")] = None,
    agents_file: Annotated[Path | None, typer.Option(help="TOML file that has the agent.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Transfer a call, at most once, and say how it stands when GWS has answered.

    calltrail transfer send 01RCC… --agent 15000 --to 15002 --data TransferReason=Escalation
    """

    async def main() -> None:
        settings = load_settings(gws_url=gws_url, agents_file=agents_file, data_dir=data_dir)
        user_data = dict(pair(item) for item in data) if data else None
        command = parse_command(
            call,
            build_body(to, location, user_data),
            agent=agent,
            caller=agent,
            door=DOOR,
            key=key or str(uuid4()),
        )
        async with open_application(settings) as application:
            application.handler.dispatcher.queue.start()  # stopped with the handler
            outcome = await application.handler.transfer(command)
        transfer = outcome.transfer
        if as_json:
            show.print_json(
                {"transfer_id": transfer.id, "state": transfer.state, "replayed": outcome.replayed}
            )
        else:
            show.console.print(f"Transfer {transfer.id} is {transfer.state}.", soft_wrap=True)
            show.console.print(f"Its trail: calltrail transfer show {transfer.id}", soft_wrap=True)

    run(main())


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise BadConfig("--data", f"is {text!r}", "Write key=value")
    return name, value
