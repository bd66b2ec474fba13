from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.engine import URL
from transfer_site import Site, open_site

from service.simulator import Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, agent_count=4) as running:
        yield running


@pytest.fixture
async def site(database_url: URL, simulator: Simulator) -> AsyncIterator[Site]:
    async with open_site(database_url, simulator) as opened:
        yield opened


@pytest.fixture
async def site_without_gws(database_url: URL, simulator: Simulator) -> AsyncIterator[Site]:
    """Nothing listens where GWS should be."""
    async with open_site(database_url, simulator, recording=False, gws_url="http://127.0.0.1:9") as opened:
        yield opened
