from __future__ import annotations

import itertools

from service.log import EventLog
from service.projections import Engine
from service.projections.histories import Histories


async def append(log: EventLog, count: int, *, seed: int = 1, live: int = 8, agents: int = 10) -> Histories:
    """Append `count` made-up events; more can be had from what is returned."""
    histories = Histories(seed=seed, live=live, agents=agents)
    await log.append(list(itertools.islice(histories.events(), count)))
    return histories


async def caught_up(engine: Engine, log: EventLog) -> int:
    """Wait until the running engine has folded the whole log; the last position."""
    end = await log.next_position() - 1
    assert await engine.reached(end, timeout_s=60)
    return end
