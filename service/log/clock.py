"""A clock that was set back. The log holds `recorded_at` until the clock has passed it, and records the fact.

The event's id follows from the time that is held, so however many appends and processes notice one step, it
is recorded once.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from service.log.event import CLOCK_STEPPED, NewEvent
from service.log.ids import Producer

STREAM = "clock"


def clock_stepped(clock: datetime, held_at: datetime) -> NewEvent:
    """The event that says: the clock said `clock` when the last event had been recorded at `held_at`."""
    producer = Producer.derived(held_at, CLOCK_STEPPED.encode())
    payload = msgspec.json.encode({"v": 1, "clock": clock, "held_at": held_at})
    return NewEvent(producer.key, STREAM, CLOCK_STEPPED, payload)
