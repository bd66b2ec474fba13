"""What one agent's recording has to write: deliveries, and the facts that wait for the next append."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from service.errors import DatabaseUnavailable, EventIdReused
from service.events import Event, UnreadableReceived, encode, session_stream
from service.log import EventLog, NewEvent, Producer, Statement
from service.recorder.appending import PatientLog
from service.recorder.notifications import PART_BYTES, in_parts
from service.recorder.ownership import Ownership

logger = logging.getLogger(__name__)


class Journal:
    """One agent's way into the log. Facts wait in order and go in with whatever is appended next.

    Nothing counts as durable unless `ownership` was held all the while.
    """

    def __init__(self, agent: str, log: EventLog, ownership: Ownership) -> None:
        self.log = PatientLog(log)
        self._agent = agent
        self._ownership = ownership
        self._facts: list[NewEvent] = []

    @property
    def waiting(self) -> int:
        """How many facts are not written yet."""
        return len(self._facts)

    @property
    def behind(self) -> bool:
        """Whether something is not in the log, or may not be."""
        return bool(self._facts) or self.log.busy

    def note(self, session: UUID, event: Event, body: bytes | None = None) -> None:
        """Let an event about a session wait for the next append; with a large body, as one in parts."""
        if body is not None and len(body) > PART_BYTES:
            self._note_in_parts(session, event, body)
            return
        payload = encode(event, body)
        self._facts.append(NewEvent(Producer.new().key, session_stream(session), event.kind(), payload))

    def _note_in_parts(self, session: UUID, event: Event, body: bytes) -> None:
        parts = in_parts(body)
        said = event.reason if isinstance(event, UnreadableReceived) else event.kind()
        for number, part in enumerate(parts, start=1):
            self.note(session, self._unreadable(session, f"{said} (part {number} of {len(parts)})"), part)

    async def append(self, session: UUID, events: list[NewEvent], also: Sequence[Statement]) -> None:
        """Append the facts that wait, and `events`.

        Raises:
            DatabaseError: it is not known to be durable, or another process may have taken the agent over
                meanwhile; to be tried again with the same events.

        """
        tenure = self._ownership.tenure
        if tenure is None:
            raise DatabaseUnavailable("another process may have taken over the agent")
        while True:
            try:
                await self.log.append([*self._facts, *events], also)
            except EventIdReused as error:
                self._keep_first(session, events, error)
            else:
                break
        self._facts.clear()
        if self._ownership.tenure != tenure:
            raise DatabaseUnavailable("another process may have taken over the agent meanwhile")

    def _keep_first(self, session: UUID, events: list[NewEvent], error: EventIdReused) -> None:
        """Keep the bytes that came first; the other ones are evidence, and an alarm."""
        other = next((event for event in events if event.event_id == error.event_id), None)
        if other is None:
            raise error
        events.remove(other)
        extra = {"agent": self._agent, "session": str(session), "fault": str(error)}
        logger.error("a redelivery has other bytes", extra=extra)
        reason = f"redelivered with other bytes than those at position {error.position}"
        self.note(session, self._unreadable(session, reason), other.payload)

    def _unreadable(self, session: UUID, reason: str) -> UnreadableReceived:
        return UnreadableReceived(
            session=session, agent=self._agent, received_at=datetime.now(UTC), reason=reason
        )
