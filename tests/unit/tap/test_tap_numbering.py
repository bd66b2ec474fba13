"""The recipe by which an event that comes again has the number it had, against a model of the server."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from service.log import Producer
from service.tap.sessions import Session, session_of

Step = tuple[int, bool, bool]
"""How many events are published, whether the answer arrives, and whether the process is another one."""
STEPS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=40)


class Server:
    """The acknowledgement extension: what is not acknowledged is in every answer, under a new batch."""

    def __init__(self) -> None:
        self.batch = 0
        self.queue: list[tuple[int, int]] = []
        self.published = 0

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.queue.append((self.batch + 1, self.published))
            self.published += 1

    def connect(self, ack: int) -> tuple[int, list[int]]:
        self.queue = [(batch, event) for batch, event in self.queue if batch > ack]
        self.batch += 1
        return self.batch, [event for _, event in self.queue]


def begin() -> Session:
    return Session(b"c", Producer.new(), "15000", ack=True, alive_at=datetime.now(UTC))


def stored(session: Session) -> dict[str, object]:
    """The session as its row has it."""
    row = {name: getattr(session, name) for name in ("client", "agent", "ack", "alive_at", "channels")}
    row |= {name: getattr(session, name) for name in ("opened_at", "opened", "delivered", "base", "batch")}
    batches, ends = [batch for batch, _ in session.ends], [end for _, end in session.ends]
    return row | {"session": session.key, "batches": batches, "ends": ends, "patience_s": session.patience_s}


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_every_event_keeps_its_number_however_often_it_comes_and_whoever_passes_it_on(
    steps: list[Step],
) -> None:
    server, session, acked = Server(), begin(), 0
    numbers: dict[int, int] = {}
    row = stored(session)
    for published, arrives, another in steps:
        if another:
            session = session_of(row)
        server.publish(published)
        batch, events = server.connect(acked)
        first = session.first_after(acked)
        for at, event in enumerate(events):
            assert numbers.setdefault(event, first + at) == first + at
        session.delivers(batch, first + len(events))
        if events:  # what brings nothing is not written down
            row = stored(session)
        if arrives:
            acked = batch
    assert sorted(numbers.values()) == list(range(len(numbers)))
    assert len(session.ends) <= len(numbers) + 1


def test_a_client_that_acknowledges_less_than_before_is_answered_from_where_it_was() -> None:
    session = begin()
    session.delivers(1, 3)
    assert session.first_after(1) == 3
    assert session.first_after(0) == 3
