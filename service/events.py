"""The catalogue of event kinds: each a typed, versioned struct. Nothing else lists kinds.

A payload is one line of JSON, the struct with its schema version ``v``, and, where the event carries bytes
of others (a notification, an answer), a newline and those bytes, exactly as they were. JSON text holds no
raw newline, so the first one ends the line.

To change a struct: raise its `version` and add to `_UPCASTERS` the function that lifts the older version's
fields; `decode` applies it on read. Stored payloads never change.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import msgspec

from service.gws import Notification


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every kind has in common. The class's name is the kind's wire name."""

    version: ClassVar[int] = 1

    @classmethod
    def kind(cls) -> str:
        return cls.__name__


# From GWS


class NotificationReceived(Event, frozen=True):
    """CometD delivered one event; the body is its element of the response array, byte for byte.

    A redelivery makes the very same event: nothing here tells when or in which response it came.
    """

    session: UUID
    """The recorder's session, as its producer key."""
    agent: str | None
    count: int
    """How many events the session had brought before this one."""
    channel: str | None = None
    part: int = 1
    """An element that is too large for one event is cut into `parts`, in order."""
    parts: int = 1


class UnreadableReceived(Event, frozen=True):
    """Something that CometD sent could not be taken as what it should be; the body is its bytes, as evidence.

    A response that is no JSON, or a redelivery whose bytes differ from what was recorded first.
    """

    session: UUID
    agent: str | None
    received_at: datetime
    reason: str


# From the recorder


class SessionOpened(Event, frozen=True):
    """A CometD session began: from here on what happens is seen."""

    session: UUID
    agent: str
    at: datetime
    ack: bool
    """Whether the server redelivers what is not acknowledged."""
    channels: tuple[str, ...]
    transport: str = "long-polling"


class SessionResumed(Event, frozen=True):
    """A restarted process took up the session where it was left: nothing was missed."""

    session: UUID
    agent: str
    at: datetime


class SessionLost(Event, frozen=True):
    """The session is gone. What happened after `last_alive` may have been missed."""

    session: UUID
    agent: str
    at: datetime
    cause: str
    last_alive: datetime | None


class GapSuspected(Event, frozen=True):
    """A poll failed on a server that does not redeliver: something may have been lost since `last_alive`."""

    session: UUID
    agent: str
    at: datetime
    cause: str
    last_alive: datetime | None


class SessionClosed(Event, frozen=True):
    """We ended the session."""

    session: UUID
    agent: str
    at: datetime
    reason: str


class SessionRefused(Event, frozen=True):
    """GWS does not let this agent in; it is tried again after a long pause."""

    session: UUID
    agent: str
    at: datetime
    cause: str


class CallsSnapshotTaken(Event, frozen=True):
    """What GWS said the agent's calls were, after a gap; the body is its answer to GET /me/calls."""

    session: UUID
    agent: str
    at: datetime
    http_status: int


class CallSnapshotTaken(Event, frozen=True):
    """What GWS said about one call when asked; the body is its answer to GET /me/calls/{id}."""

    call_id: str
    agent: str
    at: datetime
    http_status: int


# From the tap


class AgentIdentified(Event, frozen=True):
    """Who is behind a session that was not known until now: a CometD session's, or that of commands."""

    session: UUID
    agent: str
    at: datetime


class CommandObserved(Event, frozen=True):
    """An application commanded something through the tap, and GWS answered.

    The body is a JSON array of the request and the answer, each as it came, byte for byte; null where there
    is none or it is left out.
    """

    agent: str | None
    session: UUID
    """Stands for the HTTP session; `AgentIdentified` may tell later who is behind it."""
    method: str
    path: str
    at: datetime
    operation: str | None = None
    call_id: str | None = None
    http_status: int | None = None
    """None: no answer came."""
    status_code: int | None = None
    left_out: tuple[str, ...] = ()
    """What is not kept, or masked: `request` or `answer` (too large, or no JSON), or the name of a secret."""


class RecordingInterrupted(Event, frozen=True):
    """The log was away or slow, and the tap passed on what it could not record."""

    since: datetime
    until: datetime
    cause: str
    deliveries: int
    """Answers of CometD that may be missing; each agent's gap is told by events of its own."""
    commands: int


# From the command handler


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


CATALOGUE: dict[str, type[Event]] = {
    kind.kind(): kind
    for kind in (
        NotificationReceived,
        UnreadableReceived,
        SessionOpened,
        SessionResumed,
        SessionLost,
        GapSuspected,
        SessionClosed,
        SessionRefused,
        CallsSnapshotTaken,
        CallSnapshotTaken,
        AgentIdentified,
        CommandObserved,
        RecordingInterrupted,
        TransferKeyClaimed,
        TransferRequested,
        TransferDispatched,
        TransferNotSent,
        TransferAccepted,
        TransferRejected,
        TransferInDoubt,
        TransferConfirmed,
        TransferFailed,
        TransferAbandoned,
        TransferContradicted,
        CommandRefused,
        ProjectionRebuilt,
        LogVerified,
        AuditExported,
        PayloadRedacted,
        RedactionRefused,
        LegalHoldPlaced,
        LegalHoldReleased,
        ClockStepped,
    )
}
"""Every kind by its wire name."""

TRANSFER_STEPS = tuple(kind for kind in CATALOGUE.values() if issubclass(kind, TransferStep))
"""The kinds that a transfer's life is made of."""

_UPCASTERS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""(kind, version) → the function that lifts that version's fields to the next version's."""


def encode(event: Event, body: bytes | None = None) -> bytes:
    """The payload of `event`."""
    fields = msgspec.to_builtins(event, builtin_types=(datetime, UUID))
    head = msgspec.json.encode({"v": event.version, **fields})
    return head if body is None else head + b"\n" + body


def decode(kind: str, payload: bytes) -> tuple[Event, bytes] | None:
    """The event and the body in `payload`; None for a kind that this program does not know.

    Raises:
        msgspec.DecodeError: the payload is not one of `kind` (a redacted one, or another program's).

    """
    struct = CATALOGUE.get(kind)
    if struct is None:
        return None
    head, _, body = payload.partition(b"\n")
    if _UPCASTERS:
        head = _upcast(struct, head)
    return _DECODERS[kind].decode(head), body


def readable(payload: bytes) -> dict[str, Any]:
    """The payload for people and for programs of others: its fields as `data`, and the `body`, if any.

    `body` is text; a body that is not UTF-8 is given as `body_base64` instead.
    """
    head, newline, body = payload.partition(b"\n")
    try:
        shown: dict[str, Any] = {"data": msgspec.json.decode(head)}
    except msgspec.DecodeError:
        shown, newline, body = {"data": None}, b"\n", payload
    if newline:
        try:
            shown["body"] = body.decode()
        except UnicodeDecodeError:
            shown["body_base64"] = b64encode(body).decode()
    return shown


def _upcast(struct: type[Event], head: bytes) -> bytes:
    fields = msgspec.json.decode(head)
    version = fields.pop("v", 1)
    if version >= struct.version:
        return head
    while version < struct.version:
        fields = _UPCASTERS[(struct.kind(), version)](fields)
        version += 1
    return msgspec.json.encode(fields)


_DECODERS = {name: msgspec.json.Decoder(struct) for name, struct in CATALOGUE.items()}


def call_stream(call_id: str) -> str:
    """The stream of what GWS said about a call."""
    return f"call-{call_id}"


def transfer_stream(call_id: str) -> str:
    """The stream of all transfers commanded on a call: they are decided together."""
    return f"transfer-{call_id}"


def session_stream(session: UUID) -> str:
    """The stream of a recorder's session."""
    return f"session-{session}"


def key_stream(digest: str) -> str:
    """The stream that a claimed Idempotency-Key has for itself; `digest` hides caller and key."""
    return f"key-{digest}"


VERIFICATION_STREAM = "verification"
"""The stream of all `LogVerified`."""
AUDIT_STREAM = "audit"
"""The stream of what was taken out of the record."""


def stream_of_notification(element: bytes, session: UUID) -> str:
    """Where a notification belongs: to its call, or to its session if it names none."""
    notification = Notification.parse(element)
    call = notification.call if notification else None
    return call_stream(call.id) if call and call.id else session_stream(session)
