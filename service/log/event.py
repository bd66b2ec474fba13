"""What goes into the log and what comes out of it."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from service.errors import BadEvent

STREAM_LIMIT = 200  # characters
KIND_LIMIT = 80
SALT_BYTES = 16
PAYLOAD_REDACTED = "PayloadRedacted"
CLOCK_STEPPED = "ClockStepped"
"""The kinds that the log itself knows: the verifier tells a redaction from a forgery by the first, and the
second is of its own making."""


class NewEvent(NamedTuple):
    """An event to append.

    `event_id` makes the append idempotent. `stream` and `kind` stand in the open envelope, so they hold no
    personal data: no phone number, no name. `payload` is kept byte for byte.
    """

    event_id: UUID
    stream: str
    kind: str
    payload: bytes


class Condition(NamedTuple):
    """Holds while `stream` has no event after position `after` (-1: no event at all)."""

    stream: str
    after: int


class Statement(NamedTuple):
    """SQL to run in the append's own transaction, after the events; it must not fail for its content.

    Those of one request run in their order. Those of different requests that happen to share a transaction
    run in any: one that builds on another's is appended after that one was answered.
    """

    sql: str
    arguments: tuple[object, ...]


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the log holds it.

    `position` counts from 0 without holes. `recorded_at` (UTC) never goes back as position grows. `salt` is
    None once the payload is redacted; `commitment` is SHA-256(salt ‖ payload as it was appended).
    """

    position: int
    recorded_at: datetime
    event_id: UUID
    stream: str
    kind: str
    salt: bytes | None
    commitment: bytes
    payload: bytes

    def envelope(self) -> dict[str, Any]:
        """What is open about the event, as plain values."""
        return {
            "position": self.position,
            "recorded_at": rfc3339(self.recorded_at),
            "event_id": str(self.event_id),
            "stream": self.stream,
            "kind": self.kind,
        }


def rfc3339(moment: datetime) -> str:
    """A time as every document of ours writes it: ``2026-11-24T09:30:00.123456Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def commit_to(salt: bytes, payload: bytes) -> bytes:
    """The commitment of `payload` under `salt`: 32 bytes that reveal nothing without the salt."""
    return hashlib.sha256(salt + payload).digest()


def check_event(event: NewEvent, *, max_payload_bytes: int) -> None:
    """Refuse what the log does not take.

    Raises:
        BadEvent: names the field.

    """
    for field, value, limit in (("stream", event.stream, STREAM_LIMIT), ("kind", event.kind, KIND_LIMIT)):
        if not value or len(value) > limit or not value.isprintable():
            raise BadEvent(field, f"is {value[:40]!r}", f"Give 1 to {limit} printable characters")
    if len(event.payload) > max_payload_bytes:
        raise BadEvent(
            "payload",
            f"has {len(event.payload)} bytes, more than {max_payload_bytes}",
            "Raise max_payload_bytes, or split it",
        )
