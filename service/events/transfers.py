"""What was commanded, what became of it, and by what evidence."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from service.events.event import Event


class TransferKeyClaimed(Event, frozen=True):
    """An Idempotency-Key belongs to this transfer from now on."""

    transfer_id: UUID
    call_id: str
    fingerprint: str


class TransferStep(Event, frozen=True):
    """What every event of a transfer's life has in common; `step` is its name in trails."""

    step: ClassVar[str]
    transfer_id: UUID


class TransferRequested(TransferStep, frozen=True):
    """Somebody wants a call transferred; the body is the request's, byte for byte."""

    step = "requested"

    call_id: str
    agent: str
    caller: str
    """Who asked, as authenticated."""
    door: str
    """Where the command came in: `gws` (the drop-in endpoint), `api` or `message`."""
    destination: str
    fingerprint: str
    """SHA-256 over call id and canonical body: what makes two requests the same."""
    conn_id: str | None = None
    keyed: bool = False
    seen_state: str | None = None
    """The leg's state as last recorded when the command came, and where that stands."""
    seen_position: int | None = None
    warnings: tuple[str, ...] = ()
    seen_at: datetime | None = None
    """GWS's own time of that state: what it told before is old news, whenever it arrives."""
    expires_at: datetime | None = None
    """After this it is not sent any more, if it has not been by then."""


class TransferDispatched(TransferStep, frozen=True):
    """The request is about to leave: unless it is certain that it did not, it is never sent again."""

    step = "dispatched"

    attempt: int = 1
    turn: UUID | None = None
    """Drawn by whoever takes it from the queue: of several who claimed it, one after the other, one sends."""


class TransferNotSent(TransferStep, frozen=True):
    """Nothing of the request reached GWS, which is certain; it will be tried again."""

    step = "not_sent"

    cause: str


class TransferAccepted(TransferStep, frozen=True):
    """GWS answered statusCode 0: passed on, not yet done. The body is the answer."""

    step = "accepted"

    http_status: int
    content_type: str


class TransferRejected(TransferStep, frozen=True):
    """GWS said no, and nothing happened; or nothing could be sent. The body is GWS's answer, if any."""

    step = "rejected"

    http_status: int | None
    content_type: str = ""
    status_code: int | None = None
    message: str = ""


class TransferInDoubt(TransferStep, frozen=True):
    """The request may have reached GWS, and no answer settles it. The body is what came back, if anything."""

    step = "in_doubt"

    cause: str
    http_status: int | None = None
    content_type: str = ""
    status_code: int | None = None


class TransferConfirmed(TransferStep, frozen=True):
    """The call did leave the agent. `evidence` are the positions that show it, `grade` how well."""

    step = "confirmed"

    grade: str
    evidence: tuple[int, ...]
    settled_by: str = "evidence"
    why: str = ""


class TransferFailed(TransferStep, frozen=True):
    """The call was not transferred."""

    step = "failed"

    grade: str
    evidence: tuple[int, ...]
    settled_by: str = "evidence"
    why: str = ""


class TransferAbandoned(TransferStep, frozen=True):
    """No evidence can be had; a person closed the matter."""

    step = "abandoned"

    settled_by: str
    why: str


class TransferContradicted(TransferStep, frozen=True):
    """What came later does not fit the outcome that had been concluded; both stay on record."""

    step = "contradicted"

    grade: str
    evidence: tuple[int, ...]
    why: str


class CommandRefused(Event, frozen=True):
    """A command that names a call was refused before anything was dispatched; the body is the request's."""

    call_id: str
    caller: str
    door: str
    field: str
    problem: str
