"""What the tap holds for certain: a gap begins before all that may be missing in it."""

from __future__ import annotations

import pytest
from tapping import application, inject, tapped

from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator

CALLS = "/v2/me/calls"


@pytest.mark.parametrize("ack", [True, False])
async def test_what_was_published_while_the_last_answer_travelled_lies_in_the_gap(
    database: Database, log: EventLog, *, ack: bool
) -> None:
    """It is not in that answer, which was written before, and no other comes: the session is lost."""
    async with (
        Simulator(seed=1, ack=ack) as simulator,
        tapped(database, log, simulator) as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS, ack=ack)
        simulator.faults.add("delay_response", seconds=0.3)
        before = inject(simulator, range(1))
        answering = agent.hold(ack=0 if ack else None)
        [session] = simulator.bayeux.sessions_of("15000")
        await simulator.until(lambda: session.batch == 1 if ack else not session.queue)
        inject(simulator, range(1, 2))  # waits in the server for the next poll
        status, answer = await answering
        assert status == 200
        assert before[0] in answer
        simulator.bayeux.end(session, "killed")
        await agent.connect_raw(ack=1 if ack else None)
        [lost] = await site.events("SessionLost")
        assert await site.bodies() == before
        assert lost.last_alive.timestamp() <= simulator.truth.published[-1].at
