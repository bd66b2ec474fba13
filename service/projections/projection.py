"""What a projection is: a table, and a pure fold from events to its rows.

A fold sees one event and the current rows of the keys that the event concerns, and says what those rows are
afterwards. It does no I/O and knows neither generations nor checkpoints; the engine does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from service.events import Event, decode
from service.log import StoredEvent

metadata = sa.MetaData()

Key = tuple[Any, ...]
Row = Mapping[str, Any]


class Recorded(NamedTuple):
    """An event as a fold sees it."""

    position: int
    recorded_at: datetime
    event: Event
    body: bytes

    @classmethod
    def of(cls, stored: StoredEvent) -> Recorded | None:
        """Read a stored event; None for a kind that this program does not know."""
        decoded = decode(stored.kind, stored.payload)
        return cls(stored.position, stored.recorded_at, *decoded) if decoded is not None else None


class Projection(Protocol):
    """One view of the log.

    `table`'s primary key is (generation, *key) and, if `versioned`, from_position: then the engine keeps one
    row per key and interval of positions, and closes the old one (to_position) when a fold changes it.
    """

    @property
    def name(self) -> str: ...
    @property
    def table(self) -> sa.Table: ...
    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def versioned(self) -> bool: ...
    @property
    def kinds(self) -> frozenset[str]: ...

    def keys(self, recorded: Recorded) -> tuple[Key, ...]:
        """The keys of the rows that the event may change."""

    def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
        """The row of `key` after the event; `row` itself if the event changes nothing."""


def storable(value: Any) -> Any:
    """`value` as Postgres takes it in text and jsonb: without NUL and without lone surrogates.

    The bytes themselves stay in the log; a view shows U+FFFD in their place.
    """
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {storable(str(name)): storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if isinstance(value, float) and (value != value or value in {float("inf"), float("-inf")}):  # noqa: PLR0124 NaN
        return str(value)
    return value
