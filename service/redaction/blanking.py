"""Blanking named fields of a payload: its line of JSON, and the bytes of others after it.

A field is a path, as ``userData.*`` or ``participants.*.phoneNumber``; ``*`` stands for any one name or any
element of an array. It is looked for at every depth, in the line and in the body, so nobody needs to know
whether a call stands under ``data.call``, in a list of calls, or alone. Of a list of calls, those of other
ids are left as they are. A path that names an object or an array means everything in it; one that goes on
below a plain value means that value (participants are objects since GWS 8.5.2 and plain numbers before).

Text becomes ``[redacted]``, anything else null; names of fields stay. A body that is no JSON cannot be looked
into, and goes as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from service.errors import BadInput
from service.events import decode

BLANK = "[redacted]"
BLANK_TEXT = b"[redacted]"
DEEPEST = 200
"""JSON nested deeper than this is treated as none."""

Path: TypeAlias = tuple[str, ...]


class Fields:
    """The fields of a redaction, as `texts`.

    Raises:
        BadInput: there are none, or one is no path.

    """

    def __init__(self, texts: list[str]) -> None:
        self.texts = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
        if not self.texts:
            raise BadInput(
                "fields", "names no field", "Write for example userData.*,participants.*.phoneNumber"
            )
        self._paths = [tuple(text.split(".")) for text in self.texts]
        for text, path in zip(self.texts, self._paths, strict=True):
            if "" in path or path[0] == "*":
                raise BadInput("fields", f"{text!r} is no path", "Begin with a name: userData.*")

    def blank(self, kind: str, payload: bytes, call_id: str) -> tuple[bytes, list[tuple[str, Any]]]:
        """The payload without the call's fields, and what was blanked: (path, value) of each.

        Raises:
            BadInput: the event could not be read or found any more without one of them.

        """
        head, newline, body = payload.partition(b"\n")
        blanked: list[tuple[str, Any]] = []
        line = self._blank_text("(the line)", head, call_id, blanked)
        text = self._blank_text("(the body)", body, call_id, blanked)
        if not blanked:
            return payload, []
        new = line + newline + text
        self._check_found_as_before(kind, payload, new)
        return new, blanked

    def _blank_text(self, name: str, text: bytes, call_id: str, blanked: list[tuple[str, Any]]) -> bytes:
        """The JSON without the fields; what is none goes as a whole, under `name`."""
        if text in {b"", BLANK_TEXT}:
            return text
        new = self._blank_json(text, call_id, blanked)
        if new is not None:
            return new
        blanked.append((name, ""))
        return BLANK_TEXT

    def _blank_json(self, text: bytes, call_id: str, blanked: list[tuple[str, Any]]) -> bytes | None:
        """The JSON without the fields; None if it is none."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if depth_exceeds(document, DEEPEST):
            return None
        before = len(blanked)
        others = take_others(document, call_id)
        new = self._blank(document, [], (), blanked)
        for place, call in others:
            new["calls"].insert(place, call)
        return text if len(blanked) == before else compact(new)

    def _blank(self, value: Any, open_paths: list[Path], at: Path, blanked: list[tuple[str, Any]]) -> Any:
        """`value` blanked; `open_paths` are what is left of the paths that led here."""
        if isinstance(value, dict):
            return {
                name: self._blank_member(child, name, open_paths, (*at, name), blanked)
                for name, child in value.items()
            }
        if isinstance(value, list):
            return [self._blank_member(child, "*", open_paths, (*at, "*"), blanked) for child in value]
        return value

    def _blank_member(
        self, child: Any, name: str, open_paths: list[Path], at: Path, blanked: list[tuple[str, Any]]
    ) -> Any:
        going_on = [path[1:] for path in [*open_paths, *self._paths] if path[0] in {name, "*"}]
        plain = not isinstance(child, dict | list)
        if () in going_on or (plain and going_on):
            return blank_all(child, at, blanked)
        return self._blank(child, going_on, at, blanked)

    def _check_found_as_before(self, kind: str, payload: bytes, new: bytes) -> None:
        try:
            before = identity(kind, payload)
        except msgspec.DecodeError:
            return  # it could not be read before either
        try:
            after = identity(kind, new)
        except msgspec.DecodeError as error:
            raise BadInput("fields", f"{kind} needs one of them ({error})", "Name fields of GWS") from error
        if after != before:
            raise BadInput(
                "fields", f"{kind} would not be found any more", "Leave the ids of calls and events"
            )


def compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def blank_all(value: Any, at: Path, blanked: list[tuple[str, Any]]) -> Any:
    """Every plain value in `value` blanked; what is blank already is not counted."""
    if isinstance(value, dict):
        return {name: blank_all(child, (*at, name), blanked) for name, child in value.items()}
    if isinstance(value, list):
        return [blank_all(child, (*at, "*"), blanked) for child in value]
    if value in {BLANK, "", None}:
        return value
    blanked.append((".".join(at), value))
    return BLANK if isinstance(value, str) else None


def take_others(document: Any, call_id: str) -> list[tuple[int, Any]]:
    """Take calls of other ids out of a list of calls; each with its place."""
    calls = document.get("calls") if isinstance(document, dict) else None
    if not isinstance(calls, list):
        return []
    others = [
        (place, call)
        for place, call in enumerate(calls)
        if isinstance(call, dict) and isinstance(call.get("id"), str) and call["id"] != call_id
    ]
    document["calls"] = [call for place, call in enumerate(calls) if place not in dict(others)]
    return others


def identity(kind: str, payload: bytes) -> list[Any] | None:
    """What an event is found by: the ids in its line, and those of the calls that its body tells of."""
    decoded = decode(kind, payload)
    if decoded is None:
        return None
    event, body = decoded
    names = ("call_id", "transfer_id", "session", "agent", "count", "part", "hold_id")
    found = [getattr(event, name, None) for name in names]
    try:
        return found + [call.get("id") for call in calls_in(json.loads(body))]
    except (ValueError, RecursionError):
        return found


def calls_in(document: Any) -> Iterator[dict[str, Any]]:
    """The call resources in a body of GWS: of a notification, or of an answer with one or several calls."""
    if not isinstance(document, dict):
        return
    data = document.get("data")
    places = [document.get("call"), data.get("call") if isinstance(data, dict) else None]
    calls = document.get("calls")
    places += calls if isinstance(calls, list) else []
    yield from (place for place in places if isinstance(place, dict))


def plain_values(value: Any, at: Path = ()) -> Iterator[tuple[str, Any]]:
    """Every plain value of a document, with its path."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from plain_values(child, (*at, name))
    elif isinstance(value, list):
        for child in value:
            yield from plain_values(child, (*at, "*"))
    else:
        yield ".".join(at), value


def depth_exceeds(document: Any, limit: int) -> bool:
    level = [document]
    for _ in range(limit):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True
