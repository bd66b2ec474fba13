"""Rows of `event_log` in the binary format of COPY (PostgreSQL documentation, SQL COPY, "Binary Format")."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = struct.pack(">h", -1)

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # Postgres counts timestamps from here, in microseconds
_FIXED = struct.Struct(">h iq iq i16s ih i").pack  # column count, position, recorded_at, event_id, codec, …
_LENGTH = struct.Struct(">i").pack
_COMMITMENT = struct.Struct(">i16s i32s i").pack  # salt, commitment, and the payload's length


class Row(NamedTuple):
    """One event with everything the log adds to it; `payload` as it is stored under `codec`."""

    position: int
    recorded_at: datetime
    event_id: UUID
    codec: int
    stream: str
    kind: str
    salt: bytes
    commitment: bytes
    payload: bytes


def encode_rows(rows: Iterable[Row], recorded_at: datetime) -> bytes:
    """Rows of one transaction, all recorded at the same time; they stand between `HEADER` and `TRAILER`."""
    moment = (recorded_at - _EPOCH) // timedelta(microseconds=1)
    pieces: list[bytes] = []
    add = pieces.extend
    for position, _, event_id, codec, stream, kind, salt, commitment, payload in rows:
        stream_bytes = stream.encode()
        kind_bytes = kind.encode()
        add(
            (
                _FIXED(9, 8, position, 8, moment, 16, event_id.bytes, 2, codec, len(stream_bytes)),
                stream_bytes,
                _LENGTH(len(kind_bytes)),
                kind_bytes,
                _COMMITMENT(16, salt, 32, commitment, len(payload)),
                payload,
            )
        )
    return b"".join(pieces)
