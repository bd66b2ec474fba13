"""Rows of `event_log` in the binary format of COPY (PostgreSQL documentation, SQL COPY, "Binary Format")."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = struct.pack(">h", -1)

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # Postgres counts timestamps from here, in microseconds
_PLACE = struct.Struct(">h iq iq").pack  # column count, position, recorded_at
_ID = struct.Struct(">i16s ih i").pack  # event_id, codec, and the stream's length
_LENGTH = struct.Struct(">i").pack
_COMMITMENT = struct.Struct(">i16s i32s i").pack  # salt, commitment, and the payload's length


def encode_rest(
    event_id: UUID, codec: int, stream: str, kind: str, salt: bytes, commitment: bytes, stored: bytes
) -> bytes:
    """A row without its place in the log: everything after `recorded_at`."""
    stream_bytes, kind_bytes = stream.encode(), kind.encode()
    return b"".join(
        (
            _ID(16, event_id.bytes, 2, codec, len(stream_bytes)),
            stream_bytes,
            _LENGTH(len(kind_bytes)),
            kind_bytes,
            _COMMITMENT(16, salt, 32, commitment, len(stored)),
            stored,
        )
    )


def encode_rows(first_position: int, recorded_at: datetime, rests: Iterable[bytes]) -> bytes:
    """Rows of one transaction, one after the other; they stand between `HEADER` and `TRAILER`."""
    moment = (recorded_at - _EPOCH) // timedelta(microseconds=1)
    place = _PLACE
    return b"".join(
        [place(9, 8, position, 8, moment) + rest for position, rest in enumerate(rests, first_position)]
    )
