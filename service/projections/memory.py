"""What a folder remembers, in bounded space: rows touched lately, and which keys were ever written."""

from __future__ import annotations

import gc
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")

YOUNG_LIMIT = 40_000  # entries; twice as many are held at most, once they have been written
BITS = 1 << 27  # 16 MB: one key in 10,000 is mistaken among 5 million, one in 100 among 15 million
PROBES = 4


GARBAGE_THRESHOLDS = (10_000, 20, 100)


def search_for_cycles_seldom() -> None:
    """Let Python search all memory for cycles once in 20 million objects instead of once in 70,000.

    Each full search walks all rows that are remembered (0.3 s for 80,000 of them), and stops the process.
    """
    gc.set_threshold(*GARBAGE_THRESHOLDS)


class Ages(Generic[Value]):
    """A mapping that forgets what has not been touched for long, in two ages.

    Only `grow_old` forgets anything, so what has been put in since then is there.
    """

    def __init__(self) -> None:
        self._young: dict[Hashable, Value] = {}
        self._old: dict[Hashable, Value] = {}

    def get(self, key: Hashable) -> Value | None:
        value = self._young.get(key)
        if value is None and (value := self._old.pop(key, None)) is not None:
            self._young[key] = value
        return value

    def put(self, key: Hashable, value: Value) -> None:
        self._young[key] = value

    def grow_old(self) -> None:
        if len(self._young) > YOUNG_LIMIT:
            self._young, self._old = {}, self._young

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


class Bloom:
    """A set that may believe to hold a key that it does not, and never the other way round."""

    def __init__(self) -> None:
        self._bits = bytearray(BITS // 8)

    def add(self, key: Hashable) -> None:
        for place in places(key):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: Hashable) -> bool:
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in places(key))


def places(key: Hashable) -> list[int]:
    """Where a key's bits are, by double hashing (Kirsch and Mitzenmacher, 2006)."""
    first = hash(key)
    second = hash((first, key)) | 1
    return [(first + probe * second) % BITS for probe in range(PROBES)]
