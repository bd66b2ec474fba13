"""What every kind of event has in common."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every kind has in common. The class's name is the kind's wire name."""

    version: ClassVar[int] = 1

    @classmethod
    def kind(cls) -> str:
        return cls.__name__
