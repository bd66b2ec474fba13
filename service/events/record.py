"""What was done with the record itself: verified, rebuilt, exported, redacted, held."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from service.events.event import Event

# From operators


class ProjectionRebuilt(Event, frozen=True):
    """A projection's new generation went live."""

    name: str
    generation: int
    upto: int


class LogVerified(Event, frozen=True):
    """Somebody had the whole log verified: everything was computed anew from the rows, and compared."""

    size: int
    root: str
    """The root of the tree over `size` events, in hex."""
    seconds: float
    checkpoints: int
    """Signed checkpoints that were compared."""
    redacted: tuple[int, ...] = ()
    """Positions whose payload was erased, as the log itself records."""
    differences: tuple[tuple[int, str, str], ...] = ()
    """Position, kind and description of what is not as it was, at most 20; none: intact."""


class AuditExported(Event, frozen=True):
    """Somebody took transfers out of the record. `sha256` is of the file, of a bundle's manifest."""

    by: str
    format: str
    asked: str
    """The filter, in words."""
    transfers: int
    sha256: str


class PayloadRedacted(Event, frozen=True):
    """Fields of a call's events were blanked for good and their salts destroyed."""

    call_id: str
    fields: tuple[str, ...]
    who: str
    why: str
    events: tuple[tuple[int, str], ...]
    """Each position, with the SHA-256 (hex) of the payload that stands there since."""
    approved_by: str | None = None


class RedactionRefused(Event, frozen=True):
    """Somebody wanted fields of a call blanked while a legal hold covered it; nothing was changed."""

    call_id: str
    fields: tuple[str, ...]
    who: str
    why: str
    hold_id: UUID
    case: str


class LegalHoldPlaced(Event, frozen=True):
    """From here on nothing may be redacted of the calls in scope. What is None does not narrow the scope."""

    hold_id: UUID
    case: str
    who: str
    why: str
    call_id: str | None = None
    agent: str | None = None
    """Calls of which an event names this agent."""
    since: datetime | None = None
    """Calls of which an event was recorded at or after this."""
    until: datetime | None = None


class LegalHoldReleased(Event, frozen=True):
    """A hold came to its end."""

    hold_id: UUID
    who: str
    why: str
    approved_by: str | None = None


# From the log itself


class ClockStepped(Event, frozen=True):
    """The database's clock said an earlier time than the last event has, which is held until then."""

    clock: datetime
    held_at: datetime
