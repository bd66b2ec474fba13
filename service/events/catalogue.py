"""The catalogue of event kinds, and what their payloads look like. Nothing else lists kinds.

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
from typing import Any
from uuid import UUID

import msgspec

from service.events.event import Event
from service.events.record import (
    AuditExported,
    ClockStepped,
    LegalHoldPlaced,
    LegalHoldReleased,
    LogVerified,
    PayloadRedacted,
    ProjectionRebuilt,
    RedactionRefused,
)
from service.events.recording import (
    AgentIdentified,
    CallSnapshotTaken,
    CallsSnapshotTaken,
    CommandObserved,
    GapSuspected,
    NotificationReceived,
    RecordingInterrupted,
    SessionClosed,
    SessionLost,
    SessionOpened,
    SessionRefused,
    SessionResumed,
    UnreadableReceived,
)
from service.events.transfers import (
    CommandRefused,
    TransferAbandoned,
    TransferAccepted,
    TransferConfirmed,
    TransferContradicted,
    TransferDispatched,
    TransferFailed,
    TransferInDoubt,
    TransferKeyClaimed,
    TransferNotSent,
    TransferRejected,
    TransferRequested,
    TransferStep,
)

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
