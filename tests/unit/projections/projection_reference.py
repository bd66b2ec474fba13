"""Folding as the protocol defines it, with a dictionary for a table: what the engine is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from service.events import Event, decode
from service.gws import dialect
from service.log import NewEvent
from service.projections import CallState, Projection
from service.projections.projection import Key, Recorded

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def fold_all(projection: Projection, history: Iterable[Recorded]) -> dict[Key, Any]:
    """The rows (or what the fold keeps of them) after `history`."""
    rows: dict[Key, Any] = {}
    for recorded in history:
        if recorded.event.kind() not in projection.kinds:
            continue
        keys = list(projection.keys(recorded))
        sweep = projection.sweep(recorded)
        if sweep is not None:
            assert isinstance(projection, CallState)
            keys += [
                key
                for key, row in rows.items()
                if row["agent"] == sweep.value and row["state"] not in dialect.OVER and key not in keys
            ]
        for key in keys:
            after = projection.fold(key, rows.get(key), recorded)
            if after is not None:
                rows[key] = after
    return rows


def recorded(position: int, event: Event, body: bytes = b"", stream: str = "") -> Recorded:
    return Recorded(position, BEGIN + timedelta(milliseconds=position), event, body, stream=stream)


def as_recorded(events: Iterable[NewEvent]) -> list[Recorded]:
    """Events as they would be read back, from position 0 on."""
    found = []
    for position, event in enumerate(events):
        decoded = decode(event.kind, event.payload)
        assert decoded is not None
        found.append(recorded(position, *decoded, stream=event.stream))
    return found
