"""A response body cut into its messages, each with the very bytes that the server sent.

A Bayeux body is a JSON array of messages (some servers send one bare object). Each element is parsed once,
for what the protocol needs, and its text is cut out by position rather than written out again, so that
number formats, key order and duplicate keys survive in `Message.raw`.

A body is taken as a whole or not at all: what is not JSON, or was cut off on the way, raises
`ProtocolViolation`, which carries the body. There is one finer case. An element may be sound JSON, or close
to it, and still be more than Python can hold: nested too deeply, an integer of thousands of digits, a
`NaN`, a lone surrogate. Its end can be found all the same. It is kept as `raw`, with `fields` empty and
`problem` saying why, and its neighbours are not harmed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from service.errors import ProtocolViolation

_NOTHING: Mapping[str, Any] = {}


class Message:
    """One element of a response.

    `raw` is its UTF-8 text as received. `fields` is the parsed object; it is empty when the element is not
    an object or could not be held, and then `problem` says so. The properties give a field only if it has
    the type that Bayeux gives it, else None.
    """

    __slots__ = ("fields", "problem", "raw")

    def __init__(self, raw: bytes, fields: Mapping[str, Any] = _NOTHING, problem: str | None = None) -> None:
        self.raw = raw
        self.fields = fields
        self.problem = problem

    def __repr__(self) -> str:
        return f"Message(channel={self.channel!r}, {len(self.raw)} bytes)"

    @property
    def channel(self) -> str | None:
        channel = self.fields.get("channel")
        return channel if type(channel) is str else None

    @property
    def id(self) -> str | None:
        """The id as text; some servers answer a numeric id with a number."""
        message_id = self.fields.get("id")
        return None if message_id is None else str(message_id)

    @property
    def data(self) -> Any:
        return self.fields.get("data")

    @property
    def advice(self) -> Mapping[str, Any] | None:
        advice = self.fields.get("advice")
        return advice if type(advice) is dict else None

    @property
    def ext(self) -> Mapping[str, Any]:
        ext = self.fields.get("ext")
        return ext if type(ext) is dict else _NOTHING

    @property
    def successful(self) -> bool:
        return self.fields.get("successful") is True

    @property
    def error(self) -> tuple[int | None, str]:
        """The three digits and the text of ``code:args:text``, without the args.

        The args are left out because some servers put the client id there.
        """
        error = self.fields.get("error")
        if type(error) is not str:
            return None, ""
        code, _, rest = error.partition(":")
        text = rest.rpartition(":")[2]
        return (int(code), text) if re.fullmatch("[0-9]{3}", code) else (None, error)

    @property
    def is_event(self) -> bool:
        """Whether this is for the application, not for the protocol.

        Not events are the `/meta/` messages and the reply to a publish, which has `successful` and no `data`.
        What cannot be read or has no channel counts as an event, because nothing may be lost.
        """
        fields = self.fields
        channel = fields.get("channel")
        if type(channel) is str and channel.startswith("/meta/"):
            return False
        return "data" in fields or "successful" not in fields


def split(body: bytes) -> tuple[Message, ...]:
    """Return the messages of a response body, in order.

    Raises `ProtocolViolation`, carrying the body, if it is not UTF-8, not JSON or does not end where it
    should.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ProtocolViolation(f"the body is not UTF-8 at byte {error.start}", body=body) from None
    try:
        return _Cutter(body, text).messages()
    except _NotJson as error:
        raise ProtocolViolation(f"the body is not JSON: {error}", body=body) from None


class _NotJson(ValueError):
    def __init__(self, problem: str, at: int) -> None:
        super().__init__(f"{problem} at character {at}")


class _Cutter:
    """Cuts elements out of one body."""

    __slots__ = ("_body", "_escapes", "_text")

    def __init__(self, body: bytes, text: str) -> None:
        self._text = text
        self._body = body if len(body) == len(text) else None  # of ASCII, positions are byte positions
        self._escapes = b"\\u" in body

    def messages(self) -> tuple[Message, ...]:
        """Cut the whole body: an array, or one bare element."""
        text = self._text
        at = _space(text, 0)
        if text.startswith("[", at):
            messages, at = self.elements(_space(text, at + 1))
        else:
            message, at = self.element(at)
            messages = [message]
        if _space(text, at) != len(text):
            raise _NotJson("something follows the messages", at)
        return tuple(messages)

    def elements(self, at: int) -> tuple[list[Message], int]:
        """Cut the elements of the array whose first one, or closing bracket, stands at `at`."""
        text = self._text
        messages: list[Message] = []
        if text.startswith("]", at):
            return messages, at + 1
        while True:
            message, at = self.element(at)
            messages.append(message)
            at = _space(text, at)
            if text.startswith("]", at):
                return messages, at + 1
            if not text.startswith(",", at):
                raise _NotJson("neither a comma nor the end of the array", at)
            at = _space(text, at + 1)

    def element(self, at: int) -> tuple[Message, int]:
        """Cut the element at `at`; return it and where it ends."""
        value: Any = None
        problem: str | None = None
        try:
            value, end = _DECODER.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            raise _NotJson(error.msg, error.pos) from None
        except RecursionError:
            problem, end = "nested too deeply", _end_of_element(self._text, at)
        except ValueError as error:
            problem, end = str(error), _end_of_element(self._text, at)
        raw = self._text[at:end].encode() if self._body is None else self._body[at:end]
        if type(value) is not dict:
            return Message(raw, problem=problem or "not an object"), end
        if self._escapes and b"\\u" in raw and not _encodable(value):
            return Message(raw, problem="a lone surrogate"), end
        return Message(raw, value), end


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_SPACE = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)
_SCALAR = re.compile(r"[^\s,\]\[{}\"]+")
_OPENS = {"}": "{", "]": "["}


def _space(text: str, at: int) -> int:
    """Return the position after white space."""
    if text[at : at + 1] > " ":  # the usual case, without the cost of a match
        return at
    match = _SPACE.match(text, at)
    assert match is not None, "the pattern matches nothing too"
    return match.end()


def _end_of_element(text: str, at: int) -> int:
    """Find where the element at `at` ends by strings and brackets alone, however deep they go."""
    scalar = _SCALAR.match(text, at)
    if scalar is not None:
        return scalar.end()
    opened: list[str] = []
    for token in _TOKEN.finditer(text, at):
        sign = token[0]
        if sign in "{[":
            opened.append(sign)
        elif sign in "}]":
            if opened.pop() != _OPENS[sign]:
                raise _NotJson("brackets do not match", token.start())
            if not opened:
                return token.end()
        elif sign == '"':
            break
    raise _NotJson("an element does not end", at)


def _encodable(value: Any) -> bool:
    """Whether all text in a parsed value can be written as UTF-8 again."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except RecursionError:  # deeper than the encoder goes, though not than the decoder
        return False
    return True
