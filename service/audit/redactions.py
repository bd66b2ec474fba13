"""Which of the events that an export rests on were redacted, by whom and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from service.audit.record import positions
from service.log import EventLog, rfc3339
from service.log.event import PAYLOAD_REDACTED


class Redactions:
    """The log's redactions by position, and those met so far."""

    def __init__(self, known: Mapping[int, dict[str, Any]]) -> None:
        self._known = known
        self._met: set[int] = set()

    @classmethod
    async def read(cls, log: EventLog) -> Redactions:
        """All redactions that the log records."""
        known: dict[int, dict[str, Any]] = {}
        after = -1
        while page := await log.read(after=after, kinds=[PAYLOAD_REDACTED]):
            for event in page:
                fact = msgspec.json.decode(event.payload)
                said = {"at": rfc3339(event.recorded_at), "who": fact["who"], "why": fact["why"]}
                known |= {position: {"position": position, **said} for position, _ in fact["events"]}
            after = page[-1].position
        return cls(known)

    def look_at(self, row: Mapping[str, Any]) -> None:
        """Take note of the redacted events that a transfer rests on."""
        if self._known:
            self._met.update(position for position in positions(row) if position in self._known)

    def found(self) -> list[dict[str, Any]]:
        """The redactions met, in the order of the log."""
        return [self._known[position] for position in sorted(self._met)]
