from collections.abc import AsyncIterator

import pytest
from raw_agent import AgentClient, agent_client

from service.simulator import Simulator


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(seed=7, timeout_ms=5000) as simulator:
        yield simulator


@pytest.fixture
async def agent(sim: Simulator) -> AsyncIterator[AgentClient]:
    async with agent_client(sim, "15000") as client:
        yield client
