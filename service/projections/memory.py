"""What a folder remembers, in bounded space: rows touched lately, and which keys were ever written."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")

YOUNG_LIMIT = 16_000  # entries; about twice as many are held at most
BITS = (
    1 << 26
)  # 8 MB once all are used: of a million keys that were never added, it takes a thousand for known

GARBAGE_THRESHOLDS = (10_000, 20, 100)


def search_for_cycles_seldom() -> None:
    """Let Python search all memory for cycles once in 20 million objects instead of once in 70,000.

    Each full search walks all rows that are remembered (0.3 s for 80,000 of them), and stops the process.
    """
    gc.set_threshold(*GARBAGE_THRESHOLDS)


@contextmanager
def no_searching_for_cycles() -> Iterator[None]:
    """Folds and readers make no cycles, and looking for some among all rows costs more than they do."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Ages(Generic[Value]):
    """A mapping in two ages: what was touched lately is young, what was not for some time is old.

    To touch an entry is `find`; `young` may then be asked itself. Nothing is forgotten but by `grow_old`.
    """

    def __init__(self) -> None:
        self.young: dict[Any, Value] = {}
        self.old: dict[Any, Value] = {}

    def find(self, key: Hashable) -> Value | None:
        """What stands under `key`, which is young from now on; None if it is not here."""
        value = self.young.get(key)
        if value is None and (value := self.old.pop(key, None)) is not None:
            self.young[key] = value
        return value

    @property
    def full(self) -> bool:
        """Whether it is time to `grow_old`."""
        return len(self.young) > YOUNG_LIMIT

    def grow_old(self) -> None:
        """Forget what is old; what is young is old now."""
        self.young, self.old = {}, self.young


class Bloom:
    """A set of which most keys that are not in it are known not to be, and all that are in it are found."""

    def __init__(self) -> None:
        self._bits = bytearray(BITS // 8)

    def add(self, key: Hashable) -> None:
        first, second = places(key)
        self._bits[first >> 3] |= 1 << (first & 7)
        self._bits[second >> 3] |= 1 << (second & 7)

    def __contains__(self, key: Hashable) -> bool:
        first, second = places(key)
        bits = self._bits
        return bool(bits[first >> 3] >> (first & 7) & 1 and bits[second >> 3] >> (second & 7) & 1)


def places(key: Hashable) -> tuple[int, int]:
    """Where a key's two bits are: both from one hash of 64 bits."""
    number = hash(key)
    return number & (BITS - 1), number >> 32 & (BITS - 1)
