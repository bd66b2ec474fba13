r"""The entry: what the log's tree says about one event. Its bytes are the leaf.

    {"v":1,"position":17,"id":"…","stream":"…","kind":"…","recorded_at":"…","commitment":"…"}

It holds the event's envelope, and of its payload only the commitment SHA-256(salt ‖ payload), in base64. The
salt is random and has 16 bytes, always: were its length free, bytes could be moved between the salt and the
payload without changing the hash. Once salt and payload are destroyed nothing can be learned from the
commitment, and the tree is as it was.

An entry has exactly one spelling: these keys in this order, no spaces, everything beyond ASCII escaped as
``\uXXXX``. So equal events have equal leaves, and the bytes can be made anew from the columns of a table.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import NamedTuple
from uuid import UUID

import msgspec

from service.errors import Malformed
from service.tlog.encoding import LARGEST_SIZE, check_utf8, decode_hash
from service.tlog.tiles import LARGEST_ENTRY

SALT_BYTES = 16
"""Length of every salt."""

_KEYS = ["v", "position", "id", "stream", "kind", "recorded_at", "commitment"]
_TEXTS = {
    "id": (re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"), "a UUID in lower case"),
    "stream": (re.compile(r"(?s).+"), "text"),
    "kind": (re.compile(r"(?s).+"), "text"),
    "recorded_at": (
        re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"),
        "UTC with microseconds, as 2026-11-24T20:13:00.123456Z",
    ),
    "commitment": (re.compile(r"[A-Za-z0-9+/=]+"), "base64"),
}


def commit(salt: bytes, payload: bytes) -> bytes:
    """Return the commitment to a payload, 32 bytes. The salt must have 16 bytes and be used once."""
    return hashlib.sha256(salt + payload).digest()


class _Spelling(msgspec.Struct, gc=False):
    """The keys of an entry in their order; msgspec writes a UUID as text and bytes in base64."""

    v: int
    position: int
    id: UUID | str
    stream: str
    kind: str
    recorded_at: str
    commitment: bytes


_write = msgspec.json.Encoder().encode


def encode_entry(  # noqa: PLR0917 the fields in their order
    position: int, event_id: UUID | str, stream: str, kind: str, recorded_at: str, commitment: bytes
) -> bytes:
    """Return the bytes of an entry.

    `event_id` is a UUID or its usual lower-case form, `recorded_at` UTC with microseconds
    (``2026-11-24T20:13:00.123456Z``), `commitment` 32 bytes. This runs for every event that is logged and
    trusts its caller about these; `Entry.decode` checks them.
    """
    entry = _write(_Spelling(1, position, event_id, stream, kind, recorded_at, commitment))
    return entry if entry.isascii() and b"\x7f" not in entry else _escape(entry)


def _escape(entry: bytes) -> bytes:
    """Spell an entry with what is beyond ASCII, and the control character DEL, escaped."""
    return json.dumps(json.loads(entry), separators=(",", ":")).encode()


class Entry(NamedTuple):
    """An entry that was read; the fields are those of `encode_entry`."""

    position: int
    event_id: str
    stream: str
    kind: str
    recorded_at: str
    commitment: bytes

    def encode(self) -> bytes:
        return encode_entry(*self)

    @classmethod
    def decode(cls, data: bytes) -> Entry:
        """Read an entry; ``decode(data).encode() == data``. Raises `Malformed`."""
        if len(data) > LARGEST_ENTRY:
            raise Malformed("entry", f"{len(data)} bytes; the limit is {LARGEST_ENTRY}")
        try:
            fields = json.loads(data.decode("ascii"))
        except (ValueError, RecursionError):
            raise Malformed("entry", "is not JSON in ASCII") from None
        if not isinstance(fields, dict) or list(fields) != _KEYS:
            raise Malformed("entry", f"must be a JSON object with exactly the keys {', '.join(_KEYS)}")
        position = fields["position"]
        if type(position) is not int or not 0 <= position <= LARGEST_SIZE:
            raise Malformed("entry, position", "is not a whole number from 0 to 2^63 - 1")
        for key, (form, meaning) in _TEXTS.items():
            if not isinstance(fields[key], str) or not form.fullmatch(fields[key]):
                raise Malformed(f"entry, {key}", f"is not {meaning}")
            check_utf8(fields[key], f"entry, {key}")
        entry = cls(
            position,
            fields["id"],
            fields["stream"],
            fields["kind"],
            fields["recorded_at"],
            decode_hash(fields["commitment"], "entry, commitment"),
        )
        if entry.encode() != data:
            raise Malformed("entry", "is of another version, or not in its one spelling")
        return entry

    def opens(self, salt: bytes, payload: bytes) -> bool:
        """Tell whether this salt and payload are those that the entry commits to."""
        return len(salt) == SALT_BYTES and commit(salt, payload) == self.commitment
