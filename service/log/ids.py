"""Event ids: a producer's prefix and a count, so that a repeated event is recognised.

A producer (a CometD session, a transfer) draws a prefix once and numbers its events from 0. The id of event
n is a UUID of version 8 (RFC 9562 §5.8): 48 bits of the producer's birth in Unix milliseconds, 12 and 30
random bits, and n in the last 32. Ids of one producer sort together and in order, so an index on them grows
at a few warm places instead of at random ones.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

COUNT_BITS = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION_AND_VARIANT = (8 << 76) | (0b10 << 62)


class Producer:
    """The source of a series of event ids; `key` is the id of its event 0 and names it."""

    __slots__ = ("_prefix",)

    def __init__(self, key: UUID) -> None:
        if key.version != 8 or key.int & ((1 << COUNT_BITS) - 1):
            raise ValueError(f"{key} is not a producer's key")
        self._prefix = key.int

    @classmethod
    def new(cls) -> Producer:
        """Draw a new producer, never drawn before."""
        return cls._of(time.time_ns() // 1_000_000, secrets.randbits(42))

    @classmethod
    def derived(cls, moment: datetime, name: bytes) -> Producer:
        """The producer that follows from a moment and a name: whoever derives it gets the same."""
        micros = (moment - _EPOCH) // timedelta(microseconds=1)
        digest = sha256(b"%d %b" % (micros, name)).digest()
        return cls._of(micros // 1_000, int.from_bytes(digest) & (1 << 42) - 1)

    @classmethod
    def _of(cls, millis: int, bits: int) -> Producer:
        value = (millis & (1 << 48) - 1) << 80 | _VERSION_AND_VARIANT
        return cls(UUID(int=value | (bits >> 30) << 64 | (bits & (1 << 30) - 1) << 32))

    @property
    def key(self) -> UUID:
        return UUID(int=self._prefix)

    def event_id(self, count: int) -> UUID:
        """The id of this producer's event number `count`, counted from 0."""
        if not 0 <= count < 1 << COUNT_BITS:
            raise ValueError(f"{count} is not a count of {COUNT_BITS} bits")
        return UUID(int=self._prefix | count)

    @staticmethod
    def count_of(event_id: UUID) -> int:
        """The count in an id made by `event_id`."""
        return event_id.int & ((1 << COUNT_BITS) - 1)
