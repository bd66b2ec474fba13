"""How a payload is stored. Codec 0 keeps it as it is; `decode` gives back the very same bytes, always."""

from __future__ import annotations

from service.errors import DatabaseError

AS_IS = 0


def encode(payload: bytes) -> tuple[int, bytes]:
    """The codec and the stored form of `payload`."""
    return AS_IS, payload


def decode(codec: int, stored: bytes) -> bytes:
    """The payload of `stored`."""
    if codec != AS_IS:
        raise DatabaseError(f"a payload is stored with codec {codec}, which this program does not know")
    return stored
