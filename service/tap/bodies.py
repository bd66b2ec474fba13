"""Bodies of HTTP/1.1 messages, followed to their end while they are passed on as they came.

A body's `take` cuts from a buffer what belongs to the body and may be passed on now. Chunk sizes are checked
before they are passed on (RFC 9112 §7.1), so that the server cannot see another end of the message than the
one seen here. What the body says, without its chunks, is kept in `content` as far as `keep` bytes go.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Protocol

from service.errors import BadHttp
from service.tap.heads import Head, RequestHead, ResponseHead, parse_fields

LONGEST_SIZE_LINE = 256  # bytes
LONGEST_TRAILER = 8 << 10
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
NOT_IN_TRAILERS = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"connection", b"upgrade"}
)


class Body(Protocol):
    """A body being passed on. `kept`: its content, or None if it is more than was to be kept."""

    done: bool

    def take(self, buffer: bytearray) -> bytes:
        """Cut from `buffer` what may be passed on now."""
        ...

    def end(self) -> bool:
        """The connection has ended; whether the body is whole."""
        ...

    @property
    def kept(self) -> bytes | None: ...


class _Keeping:
    """Keeps content up to a limit."""

    __slots__ = ("_content", "_room", "done")

    def __init__(self, keep: int) -> None:
        self.done = False
        self._content: bytearray | None = bytearray()
        self._room = keep

    def keep(self, piece: bytes) -> None:
        if self._content is None:
            return
        self._room -= len(piece)
        if self._room < 0:
            self._content = None
        else:
            self._content += piece

    @property
    def kept(self) -> bytes | None:
        return None if self._content is None else bytes(self._content)

    def end(self) -> bool:
        return self.done


class Sized(_Keeping):
    """A body of known length, 0 for none."""

    __slots__ = ("_left",)

    def __init__(self, length: int, keep: int = 0) -> None:
        super().__init__(keep)
        self._left = length
        self.done = length == 0

    def take(self, buffer: bytearray) -> bytes:
        piece = cut(buffer, self._left)
        self._left -= len(piece)
        self.done = self._left == 0
        self.keep(piece)
        return piece


class UntilClose(_Keeping):
    """A response's body that ends with its connection."""

    __slots__ = ()

    def take(self, buffer: bytearray) -> bytes:
        piece = cut(buffer, len(buffer))
        self.keep(piece)
        return piece

    def end(self) -> bool:
        self.done = True
        return True


class _At(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()


class Chunked(_Keeping):
    """A body in chunks."""

    __slots__ = ("_at", "_left", "_trailer")

    def __init__(self, keep: int = 0) -> None:
        super().__init__(keep)
        self._at = _At.SIZE
        self._left = 0
        self._trailer = 0

    def take(self, buffer: bytearray) -> bytes:
        taken = bytearray()
        while not self.done:
            piece = self._step(buffer)
            if not piece:
                break
            taken += piece
        return bytes(taken)

    def _step(self, buffer: bytearray) -> bytes:
        match self._at:
            case _At.SIZE:
                line = cut_line(buffer, LONGEST_SIZE_LINE)
                if line:
                    matched = _SIZE.fullmatch(line[:-2])
                    if matched is None:
                        raise BadHttp(400, "a chunk's size is not a number")
                    self._left = int(matched[1], 16)
                    self._at = _At.DATA if self._left else _At.TRAILER
                return line
            case _At.DATA:
                piece = cut(buffer, self._left)
                self._left -= len(piece)
                self.keep(piece)
                if not self._left:
                    self._at = _At.DATA_END
                return piece
            case _At.DATA_END:
                if len(buffer) < 2:
                    return b""
                piece = cut(buffer, 2)
                if piece != b"\r\n":
                    raise BadHttp(400, "a chunk is longer than its size")
                self._at = _At.SIZE
                return piece
            case _At.TRAILER:
                return self._take_trailer(buffer)

    def _take_trailer(self, buffer: bytearray) -> bytes:
        line = cut_line(buffer, LONGEST_TRAILER)
        self._trailer += len(line)
        if self._trailer > LONGEST_TRAILER:
            raise BadHttp(431, "trailers are too long")
        if line == b"\r\n":
            self.done = True
        elif line:
            [field] = parse_fields([line[:-2]])
            if field.name in NOT_IN_TRAILERS:
                raise BadHttp(400, f"a trailer {field.name.decode()}")
        return line


def request_body(head: RequestHead, *, keep: int = 0) -> Sized | Chunked:
    """The body of a request (RFC 9112 §6.3)."""
    return Chunked(keep) if head.is_chunked else Sized(head.length or 0, keep)


def response_body(head: ResponseHead, method: bytes, *, keep: int = 0) -> Body:
    """The body of a response to a request of `method`."""
    if method == b"HEAD" or head.status in {204, 304} or head.status < 200:
        return Sized(0)
    return _response_body(head, keep)


def _response_body(head: Head, keep: int) -> Body:
    if head.is_chunked:
        return Chunked(keep)
    length = head.length
    return UntilClose(keep) if length is None else Sized(length, keep)


def cut(buffer: bytearray, most: int) -> bytes:
    """Cut up to `most` bytes from the front."""
    piece = bytes(buffer[:most])
    del buffer[:most]
    return piece


def cut_line(buffer: bytearray, longest: int) -> bytes:
    """Cut a line with its CRLF; nothing if it is not all there yet.

    Raises:
        BadHttp: it is too long, or does not end with CRLF.

    """
    end = buffer.find(b"\n", 0, longest)
    if end < 0:
        if len(buffer) >= longest:
            raise BadHttp(400, "a line of a chunked body is too long")
        return b""
    if end == 0 or buffer[end - 1] != 0x0D:
        raise BadHttp(400, "a line ends without CR")
    return cut(buffer, end + 1)
