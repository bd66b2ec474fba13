"""The database's clock, as well as this process can tell it between two answers."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from time import monotonic

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
