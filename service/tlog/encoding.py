"""Base64, decimals and hashes as the C2SP texts write them, read strictly.

One value has exactly one spelling: base64 is the standard alphabet with padding and with zero bits at its end
(RFC 4648 §3.5 lets a decoder insist on that), a decimal has no sign and no leading zero. So text that was
read and is written again comes out byte for byte the same, and nobody can change a proof without changing its
value.
"""

from __future__ import annotations

import base64
import binascii
import re

from service.errors import Malformed

HASH_BYTES = 32
"""Length of a SHA-256 hash in bytes."""

LARGEST_SIZE = 2**63 - 1
"""Largest tree size, index or POSIX time: what fits a signed 64-bit integer, as in Go's tools."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str, part: str) -> bytes:
    """Return the bytes of canonical standard base64.

    Raises `Malformed`, naming `part`, for any other alphabet, missing padding, white space or stray last
    bits.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(part, "is not standard base64 with padding") from None
    if encode_base64(data) != text:
        raise Malformed(part, "is base64 with stray bits at its end; encode it anew")
    return data


def decode_hash(text: str, part: str) -> bytes:
    """Return the 32 bytes of a hash in base64 (44 characters). Raises `Malformed`, naming `part`."""
    data = decode_base64(text, part)
    if len(data) != HASH_BYTES:
        raise Malformed(part, f"holds {len(data)} bytes, a SHA-256 hash has {HASH_BYTES}")
    return data


def decode_decimal(text: str, part: str) -> int:
    """Return an ASCII decimal from 0 to 2^63 - 1. Raises `Malformed`, naming `part`."""
    if not _DECIMAL.fullmatch(text) or int(text) > LARGEST_SIZE:
        raise Malformed(part, "is not a decimal from 0 to 2^63 - 1 without sign and leading zeros")
    return int(text)


def check_utf8(text: str, part: str) -> None:
    """Raise `Malformed`, naming `part`, when the text holds half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed(part, "cannot be written as UTF-8") from None
