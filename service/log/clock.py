"""The database's clock: as well as this process can tell it between two answers, and when it was set back.

The log holds `recorded_at` until a clock that was set back has passed it, and records the fact.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from time import monotonic

import msgspec

from service.log.event import CLOCK_STEPPED, NewEvent
from service.log.ids import Producer

STREAM = "clock"
TRUSTED_S = 60.0  # clocks of two machines drift apart by some milliseconds in that time


class DatabaseClock:
    """Goes by what the database said its time was: late by the way of the quickest answer, and never ahead.

    A database whose clock was set back is the exception: it is forgotten when the database says so.
    """

    def __init__(self) -> None:
        self._ahead_s = -inf  # of our monotonic clock
        self._told_at = -inf

    def hear(self, told: datetime) -> None:
        """Note that an answer has come in which the database said its time."""
        self._told_at = monotonic()
        self._ahead_s = max(self._ahead_s, told.timestamp() - self._told_at)

    def forget(self) -> None:
        self._ahead_s = self._told_at = -inf

    def now(self) -> datetime | None:
        """The time (UTC), or None if too long ago to know."""
        moment = monotonic()
        if moment - self._told_at > TRUSTED_S:
            return None
        return datetime.fromtimestamp(moment + self._ahead_s, UTC)


def clock_stepped(clock: datetime, held_at: datetime) -> NewEvent:
    """The event that says: the clock said `clock` when the last event had been recorded at `held_at`.

    Its id follows from the time that is held, so however many appends and processes notice one step, it is
    recorded once.
    """
    producer = Producer.derived(held_at, CLOCK_STEPPED.encode())
    payload = msgspec.json.encode({"v": 1, "clock": clock, "held_at": held_at})
    return NewEvent(producer.key, STREAM, CLOCK_STEPPED, payload)
