"""WebSocket frames (RFC 6455 §5), read while they are passed on as they came.

`Messages.take` cuts whole frames from a buffer. Text and binary messages are put together from their
frames, unmasked and, where permessage-deflate was agreed on (RFC 7692), inflated. That is for reading alone:
passed on are the frames' own bytes.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from service.errors import BadHttp
from service.tap.bodies import cut
from service.tap.heads import ResponseHead

CONTINUATION, TEXT, BINARY, CLOSE = 0x0, 0x1, 0x2, 0x8
FIN, COMPRESSED, MASKED = 0x80, 0x40, 0x80
LONGEST = 8 << 20  # bytes of a frame, and of a message when inflated
TAIL = b"\x00\x00\xff\xff"  # what a compressed message leaves out (RFC 7692 §7.2.2)


class Taken(NamedTuple):
    """A frame's bytes; `message` is what ends with it, `control` whether it belongs to none."""

    raw: bytes
    message: bytes | None
    control: bool


class Messages:
    """The frames of one direction. `longest`: of a frame and of a message, inflated, in bytes."""

    def __init__(self, *, deflate: bool, takeover: bool, longest: int) -> None:
        self._deflate = deflate
        self._takeover = takeover
        self._longest = longest
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._parts = bytearray()
        self._compressed = False

    def take(self, buffer: bytearray) -> Taken | None:
        """Cut one frame; None if it is not all there yet.

        Raises:
            BadHttp: it is no frame, or too long.

        """
        if len(buffer) < 2:
            return None
        size, at = buffer[1] & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(buffer) < 2 + width:
                return None
            size, at = int.from_bytes(buffer[2 : 2 + width], "big"), 2 + width
        if size > self._longest:
            raise BadHttp(400, f"a WebSocket frame of {size} bytes")
        masked = bool(buffer[1] & MASKED)
        begin = at + 4 * masked
        if len(buffer) < begin + size:
            return None
        first = buffer[0]
        mask = bytes(buffer[at : at + 4]) if masked else b""
        payload = bytes(buffer[begin : begin + size])
        raw = cut(buffer, begin + size)
        if first & 0x0F >= CLOSE:
            return Taken(raw, None, control=True)
        return Taken(raw, self._join(first, unmask(payload, mask)), control=False)

    def _join(self, first: int, payload: bytes) -> bytes | None:
        if first & 0x0F != CONTINUATION:
            self._parts.clear()
            self._compressed = self._deflate and bool(first & COMPRESSED)
        self._parts += payload
        if len(self._parts) > self._longest:
            raise BadHttp(400, "a WebSocket message is too long")
        if not first & FIN:
            return None
        message = bytes(self._parts)
        self._parts.clear()
        return self._inflated(message) if self._compressed else message

    def _inflated(self, message: bytes) -> bytes:
        try:
            inflated = self._inflate.decompress(message + TAIL, self._longest)
        except zlib.error as error:
            raise BadHttp(400, f"a WebSocket message that cannot be inflated ({error})") from error
        if self._inflate.unconsumed_tail:
            raise BadHttp(400, "a WebSocket message is too long when inflated")
        if not self._takeover:
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        return inflated


def unmask(payload: bytes, mask: bytes) -> bytes:
    if not mask or not payload:
        return payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def messages_of(response: ResponseHead, *, from_client: bool, longest: int = LONGEST) -> Messages:
    """The reader of one direction's frames, by the extensions that the server's answer agreed on."""
    extensions = response.tokens(b"sec-websocket-extensions")
    deflate = any(extension.startswith(b"permessage-deflate") for extension in extensions)
    resets = b"client_no_context_takeover" if from_client else b"server_no_context_takeover"
    takeover = not any(resets in extension for extension in extensions)
    return Messages(deflate=deflate, takeover=takeover, longest=longest)
