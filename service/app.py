"""The application: the one place that knows every room and wires them together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from service.api import Services
from service.cometd import shared_http
from service.config import Agent, Settings
from service.errors import BadConfig
from service.log import EventLog, open_log
from service.messaging import Messaging, open_messaging
from service.postgres import Database, open_database
from service.postgres.schema import upgrade
from service.projections import Engine, Queries, catalogue
from service.recorder import Access, Recorder
from service.transfers import Settler, Timing, TransferHandler

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Application:
    """Every part, open and ready; which background loops run is the caller's choice."""

    settings: Settings
    agents: Sequence[Agent]
    accesses: Mapping[str, Access]
    database: Database
    log: EventLog
    engine: Engine
    queries: Queries
    handler: TransferHandler
    settler: Settler
    recorder: Recorder

    @property
    def services(self) -> Services:
        return Services(
            settings=self.settings,
            agents=self.agents,
            log=self.log,
            handler=self.handler,
            engine=self.engine,
            queries=self.queries,
        )


@asynccontextmanager
async def open_application(
    settings: Settings, agents: Sequence[Agent] | None = None
) -> AsyncIterator[Application]:
    """Open the database (bringing its schema up to date), the log and all rooms; start no loop of theirs.

    `agents`: instead of those that the settings name.
    """
    agents = settings.agents() if agents is None else agents
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        await upgrade(database.url)
        log = await stack.enter_async_context(
            open_log(database, max_payload_bytes=settings.max_payload_bytes)
        )
        http = await stack.enter_async_context(shared_http())
        accesses = {
            agent.user: Access.of(agent, http, settings.gws_url, timeout_s=settings.gws_timeout_s)
            for agent in agents
        }
        timing = Timing(settings.gws_timeout_s, settings.settle_window_s, settings.wait_for_outcome_s)
        clients = {user: access.gws for user, access in accesses.items()}
        handler = TransferHandler(database, log, clients, timing)
        stack.push_async_callback(handler.stop)
        yield Application(
            settings=settings,
            agents=agents,
            accesses=accesses,
            database=database,
            log=log,
            engine=Engine(database, log, catalogue()),
            queries=Queries(database),
            handler=handler,
            settler=Settler(handler),
            recorder=Recorder(log, accesses),
        )


@asynccontextmanager
async def running(application: Application) -> AsyncIterator[Messaging | None]:
    """Run every loop: projections, settler, recorder, and with a broker the relay; stop them at the end."""
    settings = application.settings
    async with AsyncExitStack() as stack:
        for loop in (
            application.engine.loop,
            application.settler.loop,
            application.handler.dispatcher.queue,
        ):
            loop.start()
            stack.push_async_callback(loop.stop)
        application.recorder.start()
        stack.push_async_callback(application.recorder.stop)
        if settings.broker is None:
            yield None
            return
        yield await stack.enter_async_context(
            open_messaging(
                settings.broker,
                prefix=settings.subject_prefix,
                store=settings.data_dir / "nats",
                database=application.database,
                log=application.log,
                handler=application.handler,
            )
        )


def check_host(settings: Settings) -> None:
    """Refuse to listen beyond loopback, where anybody could read and transfer calls.

    Raises:
        BadConfig: the address is not loopback and `insecure` was not said.

    """
    if settings.host not in LOOPBACK and not settings.insecure:
        raise BadConfig(
            "host",
            f"{settings.host} is open to others, and there is no access control yet",
            "Listen on 127.0.0.1 behind a proxy that authenticates, or say --insecure",
        )
