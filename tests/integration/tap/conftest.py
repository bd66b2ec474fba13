"""A tap in front of a simulator, and the application of agent 15000 that uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from raw_agent import AgentClient
from tapping import Tapped, application, tapped

from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1) as running:
        yield running


@pytest.fixture
async def site(database: Database, log: EventLog, simulator: Simulator) -> AsyncIterator[Tapped]:
    async with tapped(database, log, simulator) as opened:
        yield opened


@pytest.fixture
async def agent(simulator: Simulator, site: Tapped) -> AsyncIterator[AgentClient]:
    async with application(simulator, site.tap.url) as opened:
        yield opened
