"""A tap between a client of the simulator and the simulator, and the log behind it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
from raw_agent import AgentClient
from transfer_site import QUICK

from service import events
from service.log import EventLog, StoredEvent
from service.postgres import Database
from service.simulator import Simulator
from service.tap import Tap, Upstream
from service.transfers import Settler, TransferHandler

DEADLINE_S = 30.0


@dataclass
class Tapped:
    """A tap in front of `simulator`, and what it works with."""

    simulator: Simulator
    log: EventLog
    tap: Tap
    handler: TransferHandler
    settler: Settler

    async def events(self, *kinds: str) -> list[Any]:
        """The events of these kinds, in the order of the log."""
        return [event_of(stored) for stored in await self.log.read(kinds=kinds, limit=100_000)]

    async def bodies(self) -> list[bytes]:
        """The notifications' bytes, in the order of the log."""
        return [body_of(one) for one in await self.log.read(kinds=["NotificationReceived"], limit=100_000)]

    async def kinds(self) -> list[str]:
        return [stored.kind for stored in await self.log.read(limit=100_000)]

    async def until(self, kind: str, count: int = 1) -> list[Any]:
        """Wait until `count` events of a kind are in the log."""
        async with asyncio.timeout(DEADLINE_S):
            async for _ in self.log.follow(after=-1):
                found = await self.events(kind)
                if len(found) >= count:
                    return found
        raise AssertionError


@asynccontextmanager
async def tapped(
    database: Database,
    log: EventLog,
    simulator: Simulator,
    *,
    url: str | None = None,
    settling: bool = False,
    **given: Any,
) -> AsyncIterator[Tapped]:
    """A tap in front of `simulator`, or of `url` on the way to it."""
    handler = TransferHandler(database, log, {}, QUICK)
    settler = Settler(handler)
    defaults = {"listen": "127.0.0.1:0", "timeout_s": QUICK.answer_s, "drain_s": 0.0, "patience_s": 20.0}
    given = defaults | given
    tap = Tap(Upstream(url or simulator.url), database, log, handler, **given)
    await tap.start()
    if settling:
        settler.loop.start()
    try:
        yield Tapped(simulator, log, tap, handler, settler)
    finally:
        await tap.stop()
        await settler.loop.stop()
        await handler.stop()


@asynccontextmanager
async def application(
    simulator: Simulator, url: str, number: str = "15000", *, basic: bool = True
) -> AsyncIterator[AgentClient]:
    """An agent's application whose base URL is `url`; without `basic` it has a cookie alone."""
    credentials = base64.b64encode(f"{number}:secret-{number}".encode()).decode()
    jar = aiohttp.CookieJar(unsafe=True, quote_cookie=False)
    authorization = {"Authorization": f"Basic {credentials}"}
    if not basic:
        async with (
            aiohttp.ClientSession(cookie_jar=jar) as http,
            http.get(f"{simulator.url}/api/v2/me/calls", headers=authorization),
        ):
            pass
    async with aiohttp.ClientSession(
        headers=authorization if basic else {},
        cookie_jar=jar,
        timeout=aiohttp.ClientTimeout(total=DEADLINE_S),
    ) as http:
        through = SimpleNamespace(url=url, bayeux=simulator.bayeux, until=simulator.until)
        yield AgentClient(cast("Simulator", through), number, http)


def event_of(stored: StoredEvent) -> Any:
    decoded = events.decode(stored.kind, stored.payload)
    assert decoded is not None
    return decoded[0]


def body_of(stored: StoredEvent) -> bytes:
    return stored.payload.partition(b"\n")[2]


def numbered(number: int) -> bytes:
    return json.dumps({"channel": "/v2/me/calls", "data": {"number": number}}).encode()


def inject(simulator: Simulator, numbers: range, agent: str = "15000") -> list[bytes]:
    bodies = [numbered(number) for number in numbers]
    for body in bodies:
        simulator.inject(agent, body)
    return bodies
