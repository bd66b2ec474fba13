"""What is kept of the sessions of applications, in the transactions of their events."""

from __future__ import annotations

import asyncio

from service.log import EventLog, NewEvent, Producer
from service.postgres import Database
from service.tap.sessions import Sessions


def event() -> NewEvent:
    return NewEvent(Producer.new().event_id(0), "session-1", "K", b"1")


async def test_a_session_is_as_the_last_of_the_requests_left_it_that_are_saved_together(
    log: EventLog, database: Database
) -> None:
    sessions, other = Sessions(database), Sessions(database)
    session, beside = sessions.begin("one", "15000", ack=True), sessions.begin("two", None, ack=False)
    await log.append([event()], also=[sessions.saving(session)])
    appends = []
    for batch in range(1, 4):
        session.delivers(batch, 10 * batch)
        appends.append(log.append([event()], also=[sessions.saving(session)]))
    appends.append(log.append([event()], also=[sessions.saving(beside)]))
    await asyncio.gather(*appends)

    found = await other.take("one")
    assert found is not None
    assert (found.key, found.agent, found.ack, found.alive_at) == (
        session.key,
        "15000",
        True,
        session.alive_at,
    )
    assert (found.batch, found.delivered, found.ends) == (3, 30, [(1, 10), (2, 20), (3, 30)])
    assert await other.take("two") is not None

    session.over = True
    await log.append([event()], also=[sessions.saving(session)])
    assert await Sessions(database).take("one") is None
