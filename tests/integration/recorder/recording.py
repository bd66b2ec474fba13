"""What the recorder's tests share: applications on a simulator, and facts to wait for on the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from service import events
from service.app import Application, open_application
from service.config import Agent, Settings
from service.errors import DatabaseUnavailable
from service.log import EventLog, StoredEvent
from service.postgres import Database
from service.simulator import Simulator

DEADLINE_S = 30.0


def agents(count: int = 3) -> list[Agent]:
    return [Agent(user=str(15000 + n), password=SecretStr(f"secret-{15000 + n}")) for n in range(count)]


def settings_for(database: Database, gws_url: str, data_dir: Path, **more: Any) -> Settings:
    url = database.url.render_as_string(hide_password=False)
    return Settings(database_url=url, gws_url=gws_url, data_dir=data_dir, **more)


@asynccontextmanager
async def recording(
    settings: Settings, who: list[Agent] | None, *, crash: bool = False
) -> AsyncIterator[Application]:
    """An application that records and does nothing else; ends like a service, or, with `crash`, like none."""
    async with open_application(settings, who) as application:
        application.recorder.start()
        try:
            yield application
        finally:
            if crash:
                await fall_over(application)
            else:
                await application.recorder.stop(keep_sessions=True)


async def fall_over(application: Application) -> None:
    """Stop everything at once, as a process does that is killed: nothing is closed and nothing written."""
    recorder = application.recorder
    await asyncio.gather(*(agent.loop.stop() for agent in recorder.agents.values()))
    await recorder.ownership.loop.stop()
    recorder.agents.clear()


async def until(
    log: EventLog, kind: str, *, count: int = 1, fits: Callable[[StoredEvent], bool] = lambda _: True
) -> list[StoredEvent]:
    """Wait until `count` events of a kind are in the log, and give all of them.

    The database may be away meanwhile: that a connection was cut off is found out by using it.
    """
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found: list[StoredEvent] = []
            try:
                async for page in log.follow(after=-1):
                    found += [event for event in page if event.kind == kind and fits(event)]
                    if len(found) >= count:
                        return found
            except DatabaseUnavailable:
                await asyncio.sleep(0.05)


def event_of(stored: StoredEvent) -> Any:
    decoded = events.decode(stored.kind, stored.payload)
    assert decoded is not None
    return decoded[0]


def body_of(stored: StoredEvent) -> bytes:
    return stored.payload.partition(b"\n")[2]


async def kinds(log: EventLog) -> list[str]:
    return [event.kind for event in await log.read(limit=100_000)]


async def recorded(log: EventLog, agent: str = "15000") -> list[bytes]:
    """The bodies of an agent's notifications, in the order of the log."""
    found = await log.read(kinds=["NotificationReceived"], limit=100_000)
    return [body_of(event) for event in found if event_of(event).agent == agent]


def numbered(number: int) -> bytes:
    return b'{"channel":"/v2/me/calls","data":{"number":%d}}' % number


def inject(simulator: Simulator, numbers: range, agent: str = "15000") -> list[bytes]:
    bodies = [numbered(number) for number in numbers]
    for body in bodies:
        simulator.inject(agent, body)
    return bodies
