"""The FastStream application: one broker, the commands that it brings, the relay that feeds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from faststream.nats import NatsBroker

from service.errors import BadConfig
from service.log import EventLog
from service.messaging.commands import COMMANDS, carry_out, take_commands
from service.messaging.nats import embedded_nats
from service.messaging.relay import Relay
from service.postgres import Database
from service.transfers import TransferHandler

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Messaging:
    """What runs: where the broker is, and the relay."""

    url: str
    broker: NatsBroker
    relay: Relay


@asynccontextmanager
async def open_messaging(
    broker: str, *, prefix: str, store: Path, database: Database, log: EventLog, handler: TransferHandler
) -> AsyncIterator[Messaging]:
    """Connect to the NATS server at the URL `broker`, or run one of our own if it is ``embedded``."""
    if broker == EMBEDDED:
        async with (
            embedded_nats(store) as url,
            connected(url, prefix=prefix, database=database, log=log, handler=handler) as messaging,
        ):
            yield messaging
        return
    if not broker.startswith(("nats://", "tls://")):
        raise BadConfig("broker", f"is {broker!r}", "Write embedded, or nats://host:4222")
    async with connected(broker, prefix=prefix, database=database, log=log, handler=handler) as messaging:
        yield messaging


@asynccontextmanager
async def connected(
    url: str, *, prefix: str, database: Database, log: EventLog, handler: TransferHandler
) -> AsyncIterator[Messaging]:
    broker = NatsBroker(url, graceful_timeout=10, logger=None)
    take_commands(broker, COMMANDS, partial(carry_out, handler))
    relay = Relay(database, log, broker, prefix)
    await broker.start()
    try:
        await relay.declare()
        relay.loop.start()
        yield Messaging(url, broker, relay)
    finally:
        await relay.loop.stop()
        await broker.stop()
