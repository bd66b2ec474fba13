"""Heads of HTTP/1.1 messages (RFC 9112), read strictly and passed on line by line as they came.

A proxy is unsafe where it and the server behind it read one message in two ways. So a head that leaves
anything open is refused, not repaired: line ends other than CRLF, folded lines, white space before a colon,
control characters, two lengths, a length beside a transfer coding, any coding but ``chunked``. What is left
can be passed on unchanged, with the case, order and spacing of its header fields.

Changed are the fields that hold for one connection only (RFC 9110 §7.6.1), and ``Host``.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from service.errors import BadHttp

LONGEST_HEAD = 64 << 10  # bytes
MOST_FIELDS = 200

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_REQUEST = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_HOST = re.compile(rb"[0-9A-Za-z.\-_\[\]:]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")

PER_CONNECTION = frozenset({b"keep-alive", b"proxy-connection", b"te"})
"""Never passed on. Transfer-Encoding and Upgrade are per connection too; what is passed on is our own."""
OPTIONS_OF_OURS = frozenset({b"close", b"keep-alive", b"upgrade"})
"""The options of Connection that hold on our other connection too: each client has one to itself."""
NOT_TO_BE_STRIPPED = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"set-cookie", b"origin"}
)
"""Fields whose removal, asked for by naming them in Connection, would change what the request means."""


class Field(NamedTuple):
    """A header field: its name in lower case, its value, and its line as it came."""

    name: bytes
    value: bytes
    line: bytes


class Head:
    """A start line and header fields."""

    __slots__ = ("fields", "first", "minor")

    def __init__(self, first: bytes, minor: int, fields: list[Field]) -> None:
        self.first = first
        self.minor = minor
        self.fields = fields

    def value(self, name: bytes) -> bytes | None:
        """The value of the first field of that name."""
        for field in self.fields:
            if field.name == name:
                return field.value
        return None

    def values(self, name: bytes) -> list[bytes]:
        return [field.value for field in self.fields if field.name == name]

    def text(self, name: bytes) -> str | None:
        value = self.value(name)
        return None if value is None else value.decode("latin-1")

    def tokens(self, name: bytes) -> list[bytes]:
        """The members of a list-valued field, in lower case."""
        members = b",".join(self.values(name)).split(b",")
        return [token for member in members if (token := member.strip(b" \t").lower())]

    def without(self, *names: bytes) -> None:
        self.fields = [field for field in self.fields if field.name not in names]

    def replace(self, name: bytes, value: bytes) -> None:
        """Give a field another value, in its place; its name stays as it was written."""
        for at, field in enumerate(self.fields):
            if field.name == name:
                self.fields[at] = Field(name, value, field.line[: len(name)] + b": " + value)
                return
        self.fields.append(Field(name, value, name.title() + b": " + value))

    def render(self) -> bytes:
        return b"\r\n".join([self.first, *(field.line for field in self.fields), b"", b""])

    @property
    def closes(self) -> bool:
        """Whether its sender ends the connection after the message."""
        options = self.tokens(b"connection")
        return b"close" in options or (self.minor == 0 and b"keep-alive" not in options)

    @property
    def is_chunked(self) -> bool:
        """Whether the body is in chunks.

        Raises:
            BadHttp: it is in any other coding, or a length stands beside the coding.

        """
        codings = self.values(b"transfer-encoding")
        if not codings:
            return False
        if len(codings) > 1 or codings[0].lower() != b"chunked" or self.minor == 0:
            raise BadHttp(501, "a transfer coding other than chunked")
        if self.value(b"content-length") is not None:
            raise BadHttp(400, "a length beside a transfer coding")
        return True

    @property
    def length(self) -> int | None:
        """What Content-Length says.

        Raises:
            BadHttp: it is there twice, or is no number.

        """
        lengths = self.values(b"content-length")
        if not lengths:
            return None
        if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
            raise BadHttp(400, "a length that is not one number")
        return int(lengths[0])

    def _strip(self, *, upgrade: bool) -> None:
        """Take out what holds for one connection only; `upgrade`: whether the two are to be joined."""
        options = self.tokens(b"connection")
        named = set(options) - OPTIONS_OF_OURS
        if stripped := named & NOT_TO_BE_STRIPPED:
            raise BadHttp(400, f"Connection names {min(stripped).decode()}")
        if not upgrade:
            self.without(b"upgrade", b"http2-settings")
        self.without(*PER_CONNECTION, *named)
        kept = [
            option for option in options if option in OPTIONS_OF_OURS and (upgrade or option != b"upgrade")
        ]
        if kept != options or len(self.values(b"connection")) > 1:
            self.without(b"connection")
            if kept:
                self.replace(b"connection", b", ".join(kept))


class RequestHead(Head):
    """A request's head. `target` is as it came; `path` is its path as servers understand it."""

    __slots__ = ("method", "path", "target")

    def __init__(self, first: bytes, minor: int, fields: list[Field], method: bytes, target: bytes) -> None:
        super().__init__(first, minor, fields)
        self.method = method
        self.target = target
        self.path = understood_path(target)

    @property
    def upgrades(self) -> bool:
        """Whether it asks for a WebSocket; other protocols are not upgraded to."""
        return (
            self.method == b"GET"
            and b"upgrade" in self.tokens(b"connection")
            and self.tokens(b"upgrade") == [b"websocket"]
        )

    def for_server(self, host: bytes | None) -> None:
        """Make it what is passed on; `host` replaces Host, if given.

        Raises:
            BadHttp: it must not be passed on.

        """
        self._strip(upgrade=self.upgrades)
        if host is not None:
            self.replace(b"host", host)


class ResponseHead(Head):
    """A response's head."""

    __slots__ = ("status",)

    def __init__(self, first: bytes, minor: int, fields: list[Field], status: int) -> None:
        super().__init__(first, minor, fields)
        self.status = status

    def for_client(self, *, closing: bool) -> None:
        """Make it what is passed on; `closing`: say that the connection ends after it."""
        self._strip(upgrade=self.status == 101)
        if closing and not self.closes:
            self.replace(b"connection", b"close")


def parse_request(head: bytes) -> RequestHead:
    """Read a request's head, given without the empty line that ends it.

    Raises:
        BadHttp: it leaves something open, or asks for what is not done here.

    """
    first, fields = _lines(head)
    matched = _REQUEST.fullmatch(first)
    if matched is None:
        raise BadHttp(400, "not a request line of HTTP/1.1")
    method, target, minor = matched.groups()
    if method == b"CONNECT":
        raise BadHttp(405, "CONNECT is not done here")
    if not target.startswith(b"/") and (method, target) != (b"OPTIONS", b"*"):
        raise BadHttp(400, "the target is not a path: this is no forward proxy")
    hosts = [field.value for field in fields if field.name == b"host"]
    if len(hosts) > 1 or (not hosts and minor == b"1") or not all(map(_HOST.fullmatch, hosts)):
        raise BadHttp(400, "not exactly one sound Host")
    return RequestHead(first, int(minor), fields, method, target)


def parse_response(head: bytes) -> ResponseHead:
    """Read a response's head, given without the empty line that ends it.

    Raises:
        BadHttp: it leaves something open.

    """
    first, fields = _lines(head)
    matched = _STATUS.fullmatch(first)
    if matched is None:
        raise BadHttp(502, "the server's answer is not HTTP/1.1")
    return ResponseHead(first, int(matched[1]), fields, int(matched[2]))


def parse_fields(lines: list[bytes]) -> list[Field]:
    """Read header or trailer lines.

    Raises:
        BadHttp: a line is not a field.

    """
    if len(lines) > MOST_FIELDS:
        raise BadHttp(431, f"more than {MOST_FIELDS} header fields")
    fields = []
    for line in lines:
        matched = _FIELD.fullmatch(line)
        if matched is None:
            raise BadHttp(400, "a line of the head is not a header field")
        fields.append(Field(matched[1].lower(), matched[2], line))
    return fields


def _lines(head: bytes) -> tuple[bytes, list[Field]]:
    first, *lines = head.split(b"\r\n")
    return first, parse_fields(lines)


def understood_path(target: bytes) -> str:
    """A target's path as a server may understand it: decoded, without parameters, dots and doubled slashes.

    It decides what is recorded and protected, never what is passed on.
    """
    path = unquote(target.partition(b"?")[0].partition(b"#")[0].decode("latin-1"))
    parts: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        part = segment.partition(";")[0]
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)
