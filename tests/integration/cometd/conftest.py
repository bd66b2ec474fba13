from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from service.cometd import shared_http


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with shared_http() as session:
        yield session
