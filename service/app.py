"""The application: the one place that knows every room and wires them together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from service.api import Services
from service.cometd import shared_http
from service.config import Agent, Settings
from service.errors import BadConfig
from service.log import EventLog, open_log
from service.log.checkpoints import Checkpoints, load_keys
from service.messaging import Messaging, open_messaging
from service.postgres import Database, open_database
from service.postgres.schema import upgrade
from service.projections import Engine, Queries, catalogue
from service.recorder import Access, Accesses, Clients, Recorder, Vault
from service.tap import Tap, Upstream, parse_address, server_tls
from service.transfers import Settler, Timing, TransferHandler

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Application:
    """Every part, open and ready; which background loops run is the caller's choice."""

    settings: Settings
    accesses: Accesses
    database: Database
    log: EventLog
    engine: Engine
    queries: Queries
    handler: TransferHandler
    settler: Settler
    recorder: Recorder
    tap: Tap | None = None

    @property
    def services(self) -> Services:
        return Services(
            settings=self.settings,
            accesses=self.accesses,
            database=self.database,
            log=self.log,
            handler=self.handler,
            engine=self.engine,
            queries=self.queries,
            tap=self.tap,
        )


@asynccontextmanager
async def open_application(
    settings: Settings, agents: Sequence[Agent] | None = None
) -> AsyncIterator[Application]:
    """Open the database (bringing its schema up to date), the log and all rooms; start no loop of theirs.

    `agents`: instead of those that the settings name.
    """
    check_gws(settings)
    agents_file = settings.agents_file if agents is None else None
    agents = settings.agents() if agents is None else agents
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        await upgrade(database.url)
        await database.pool.expire_connections()  # they may be older than the service's role
        log = await stack.enter_async_context(
            open_log(database, max_payload_bytes=settings.max_payload_bytes)
        )
        http = await stack.enter_async_context(shared_http())
        accesses = Accesses(
            lambda agent: Access.of(agent, http, settings.gws_url, timeout_s=settings.gws_timeout_s), agents
        )
        timing = Timing(settings.gws_timeout_s, settings.settle_window_s, settings.wait_for_outcome_s)
        handler = TransferHandler(database, log, Clients(accesses), timing)
        stack.push_async_callback(handler.stop)
        yield Application(
            settings=settings,
            accesses=accesses,
            database=database,
            log=log,
            engine=Engine(database, log, catalogue()),
            queries=Queries(database),
            handler=handler,
            settler=Settler(handler),
            recorder=Recorder(
                database,
                log,
                accesses,
                Vault(settings.data_dir),
                settings.gws_url,
                agents_file=agents_file,
            ),
            tap=make_tap(settings, database, log, handler, accesses),
        )


def make_tap(
    settings: Settings, database: Database, log: EventLog, handler: TransferHandler, accesses: Accesses
) -> Tap | None:
    """The tap that the settings ask for, if they do.

    Raises:
        BadConfig: it would listen beyond loopback without TLS, or a file or an address is wrong.

    """
    if settings.tap is None:
        return None
    tls = None if settings.tap_certificate is None else server_tls(settings.tap_certificate, settings.tap_key)
    host, _ = parse_address(settings.tap_listen)
    if tls is None and not is_loopback(host) and not settings.insecure:
        raise BadConfig(
            "tap_listen",
            f"would have passwords come in the clear to {host}",
            "Give tap_certificate, listen on 127.0.0.1 behind a proxy with TLS, or say --insecure",
        )

    def has_session(agent: str) -> bool:
        access = accesses.get(agent)
        return access is not None and access.agent.source == "session"

    return Tap(
        Upstream(settings.tap, ca_file=settings.tap_ca_file, keep_host=settings.tap_keep_host),
        database,
        log,
        handler,
        listen=settings.tap_listen,
        policy=settings.when_log_fails,
        patience_s=settings.log_patience_s,
        timeout_s=settings.gws_timeout_s,
        drain_s=settings.drain_s,
        cometd_path=settings.tap_cometd_path,
        has_session=has_session,
        tls=tls,
    )


@asynccontextmanager
async def running(
    application: Application, *, keep_sessions: bool = False
) -> AsyncIterator[Messaging | None]:
    """Run every loop: projections, settler, recorder, and with a broker the relay; stop them at the end.

    `keep_sessions`: leave the CometD sessions to a successor, who goes on with them without a gap.
    """
    settings = application.settings
    async with AsyncExitStack() as stack:
        checkpoints = Checkpoints(application.database, load_keys(settings.data_dir))
        for loop in (
            application.engine.loop,
            application.settler.loop,
            application.handler.dispatcher.queue,
            checkpoints.loop,
        ):
            loop.start()
            stack.push_async_callback(loop.stop)
        application.recorder.start()
        stack.push_async_callback(application.recorder.stop, keep_sessions=keep_sessions)
        if application.tap is not None:
            await application.tap.start()
            stack.push_async_callback(application.tap.stop)
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


def check_gws(settings: Settings) -> None:
    """Refuse to send passwords in the clear over a network.

    Raises:
        BadConfig: GWS's URL is none, or plain HTTP to another machine and `insecure` was not said.

    """
    url = urlsplit(settings.gws_url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise BadConfig("gws_url", f"is {settings.gws_url!r}", "Write https://host, without /api/v2")
    if url.username is not None or url.password is not None:
        raise BadConfig("gws_url", "holds credentials", "Give them in the agents' file")
    if url.scheme == "http" and not is_loopback(url.hostname) and not settings.insecure:
        raise BadConfig(
            "gws_url",
            f"would send passwords in the clear to {url.hostname}",
            "Use https://, or say --insecure (CALLTRAIL_INSECURE=1)",
        )


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK
