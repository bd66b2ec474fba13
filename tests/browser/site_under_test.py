"""The whole service in front of a simulated GWS, after a small day, for tests of its pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import aiohttp
from databases import execute
from day import Day
from pydantic import SecretStr
from sqlalchemy.engine import URL

from service.api.serving import serving
from service.app import Application, open_application, running
from service.config import Agent, Settings
from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator
from service.web import create_site

OPEN_WORK = """
SELECT count(*) FROM transfer_work WHERE state NOT IN ('confirmed', 'failed', 'rejected', 'abandoned')
"""


@dataclass
class Site:
    """A running service, what stands behind it, and an HTTP client."""

    url: str
    application: Application
    simulator: Simulator
    day: Day
    http: aiohttp.ClientSession

    @property
    def database(self) -> Database:
        return self.application.database

    async def settled(self) -> None:
        """Wait until nothing is under way and the views have everything."""

        async def nothing_open() -> bool:
            return not await self.database.pool.fetchval(OPEN_WORK)

        await until(self.application.log, nothing_open)
        end = await self.application.log.next_position() - 1
        assert await self.application.engine.reached(end, timeout_s=30)


@asynccontextmanager
async def open_site(server: URL, template: str, data_dir: Path, *, calls: int) -> AsyncIterator[Site]:
    """The service on a database of its own, once `calls` calls have come and gone."""
    name = f"site_{uuid4().hex}"
    await execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        async with Simulator(seed=3, agent_count=20) as simulator, aiohttp.ClientSession() as http:
            agents = [Agent(user=one, password=SecretStr(f"secret-{one}")) for one in simulator.agents]
            settings = Settings(
                database_url=server.set(database=name).render_as_string(hide_password=False),
                data_dir=data_dir,
                gws_url=simulator.url,
                settle_window_s=1,
                gws_timeout_s=20,
            )
            async with (
                open_application(settings, agents) as application,
                running(application),
                serving(create_site(application.services), "127.0.0.1", 0) as url,
            ):
                site = Site(url, application, simulator, Day(simulator, url, http, application.log), http)
                await until(application.log, lambda: sessions_open(http, url, len(agents)))
                await site.day.run(calls)
                await site.settled()
                yield site
    finally:
        await execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def sessions_open(http: aiohttp.ClientSession, url: str, count: int) -> bool:
    async with http.get(f"{url}/v1/sessions?status=open") as response:
        return len((await response.json())["sessions"]) == count


async def until(log: EventLog, fact: Callable[[], Awaitable[bool]], within_s: float = 20.0) -> None:
    """Wait for a fact that comes to hold with an event of the log."""
    async with asyncio.timeout(within_s):
        end = await log.next_position() - 1
        while not await fact():
            await log.watch.beyond(end)
            end = await log.next_position() - 1
