"""What goes into the log and what comes out of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from service.errors import BadEvent
from service.tlog.entry import SALT_BYTES

STREAM_LIMIT = 200  # characters
KIND_LIMIT = 80
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


Row = tuple[UUID, int, str, str, bytes, bytes, bytes]
"""An event as it is stored, without its place: id, codec, stream, kind, salt, commitment, payload."""


class Condition(NamedTuple):
    """Holds while `stream` has no event after position `after` (-1: no event at all)."""

    stream: str
    after: int


class Statement(NamedTuple):
    """SQL to run in the append's own transaction, after the events; it must not fail for its content.

    `sql` has one parameter, a jsonb array of objects such as `row`: it is run once for all who bring it
    (`jsonb_to_recordset`). In there `bytes` are base64, all else is as Postgres reads it.

    Those of one request run in their order. Those of different requests that happen to share a transaction
    run in any: one that builds on another's is appended after that one was answered.
    """

    sql: str
    row: Mapping[str, object]

    def alone(self) -> tuple[str, str]:
        """The statement and its argument, to be run without an append."""
        return self.sql, rows_argument([self.row])


def rows_argument(rows: Sequence[Mapping[str, object]]) -> str:
    """The one argument of a statement's SQL, for these rows."""
    return msgspec.json.encode(rows).decode()


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


def check_event(event: NewEvent, *, max_payload_bytes: int) -> None:
    """Refuse what the log does not take.

    Raises:
        BadEvent: names the field.

    """
    _, stream, kind, payload = event
    if not (0 < len(stream) <= STREAM_LIMIT and stream.isprintable()):
        raise BadEvent("stream", f"is {stream[:40]!r}", f"Give 1 to {STREAM_LIMIT} printable characters")
    if not (0 < len(kind) <= KIND_LIMIT and kind.isprintable()):
        raise BadEvent("kind", f"is {kind[:40]!r}", f"Give 1 to {KIND_LIMIT} printable characters")
    if len(payload) > max_payload_bytes:
        raise BadEvent(
            "payload",
            f"has {len(payload)} bytes, more than {max_payload_bytes}",
            "Raise max_payload_bytes, or split it",
        )


def pack_events(events: Sequence[NewEvent], pack: Callable[[bytes], tuple[int, bytes]]) -> list[Row]:
    """Make the rows of `events`: draw salts, commit to the payloads, and `pack` them.

    Commitments are as `service.tlog.entry.commit` makes them; written out, for this is done for every event.
    """
    salts = os.urandom(SALT_BYTES * len(events))
    rows: list[Row] = []
    end = 0
    for event_id, stream, kind, payload in events:
        start, end = end, end + SALT_BYTES
        salt = salts[start:end]
        codec, stored = pack(payload)
        rows.append((event_id, codec, stream, kind, salt, sha256(salt + payload).digest(), stored))
    return rows
