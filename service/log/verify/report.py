"""What a verification says."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What is wrong."""

    PAYLOAD = "payload changed"
    ENVELOPE = "envelope changed"
    MISSING = "event missing"
    INSERTED = "event inserted"
    ORDER = "order changed"
    TAIL = "tail cut off"
    HEAD = "head changed"
    ROLLED_BACK = "head rolled back"
    TILE = "tile changed"
    REWRITTEN = "history rewritten"
    CHECKPOINT = "checkpoint changed"


class Difference(NamedTuple):
    """One thing that is not as it was: at which position (the first, where there are several), and what."""

    position: int
    kind: Kind
    what: str


@dataclass
class Report:
    """The outcome. `redacted` lists the positions whose payload was erased, as the log itself records."""

    size: int = 0
    root: bytes = b""
    differences: list[Difference] = field(default_factory=list)
    redacted: list[int] = field(default_factory=list)
    checkpoints: int = 0
    """Signed checkpoints that were compared."""

    @property
    def intact(self) -> bool:
        return not self.differences

    @property
    def first(self) -> Difference | None:
        return min(self.differences, default=None)
