"""A transfer command as it comes in: read, checked, and reduced to a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import rfc8785

from service.errors import BadCommand
from service.gws import dialect
from service.gws.messages import LONGEST_ID

LONGEST_NUMBER = 256  # characters
LONGEST_KEY = 255  # characters; Stripe's limit, and the usual one
DEEPEST_NESTING = 100  # objects and arrays within each other; Postgres and others give up somewhere


@dataclass(frozen=True, slots=True)
class TransferCommand:
    """A wish to transfer `call_id` to `destination`; `body` is what GWS will be sent, byte for byte."""

    call_id: str
    agent: str
    caller: str
    door: str
    destination: str
    body: bytes
    key: str | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the call and the body in canonical form (RFC 8785), in hex.

        A body that has no canonical form (numbers beyond a double, lone surrogates, a key that stands twice)
        counts by its bytes.
        """
        try:
            canonical = rfc8785.dumps(json.loads(self.body, object_pairs_hook=distinct))
        except (ValueError, RecursionError, rfc8785.CanonicalizationError):
            canonical = self.body
        return hashlib.sha256(b"\0".join((b"POST", self.call_id.encode(), canonical))).hexdigest()

    @property
    def key_digest(self) -> str:
        """What stands for (caller, endpoint, key) in the log: neither can be read from it."""
        scope = json.dumps([self.caller, "transfer", self.key])
        return hashlib.sha256(scope.encode()).hexdigest()


def parse_command(
    call_id: str, body: bytes, *, agent: str, caller: str, door: str, key: str | None = None
) -> TransferCommand:
    """Read the body of a GWS operation request.

    Raises:
        BadCommand: names the first field that is wrong, and what to write instead.

    """
    check_call_id(call_id)
    document = parse_body(body)
    check_nesting(document)
    operation = document.get("operationName")
    if operation != dialect.SINGLE_STEP_TRANSFER:
        raise BadCommand(
            "operationName",
            f"is {shown(operation)}",
            f'Only "{dialect.SINGLE_STEP_TRANSFER}" is taken here; send other operations to GWS',
        )
    destination = document.get("destination")
    if not isinstance(destination, dict):
        raise BadCommand("destination", f"is {shown(destination)}", 'Write {"phoneNumber": "…"}')
    number = check_text("destination.phoneNumber", destination.get("phoneNumber"), LONGEST_NUMBER)
    if "location" in document:
        check_text("location", document["location"], LONGEST_NUMBER)
    if not isinstance(document.get("userData", {}), dict):
        raise BadCommand("userData", f"is {shown(document['userData'])}", 'Write an object: {"key": "value"}')
    return TransferCommand(call_id, agent, caller, door, number, body, parse_key(key))


def build_body(destination: str, location: str | None, user_data: dict[str, Any] | None) -> bytes:
    """The GWS request for a command that did not come as one."""
    document: dict[str, Any] = {
        "operationName": dialect.SINGLE_STEP_TRANSFER,
        "destination": {"phoneNumber": destination},
    }
    if location is not None:
        document["location"] = location
    if user_data is not None:
        document["userData"] = user_data
    return json.dumps(document).encode()


def parse_body(body: bytes) -> dict[str, Any]:
    """Read a JSON object whose own keys are clear.

    In userData a key may stand twice (AttachUserData makes such calls, and the bytes are passed on as they
    are). Where it would be open which destination is meant, it may not.
    """
    try:
        document = json.loads(body, object_pairs_hook=Object, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise not_json(error) from error
    if not isinstance(document, Object):
        raise BadCommand("body", "is not a JSON object", 'Send {"operationName": …}')
    for field, value in (("body", document), ("destination", document.get("destination"))):
        if isinstance(value, Object) and value.twice is not None:
            raise BadCommand(field, f"has the key {shown(value.twice)} twice", "Write it once")
    return document


def distinct_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object in which no key stands twice, however deep: it will be written anew."""
    try:
        document = json.loads(body, object_pairs_hook=distinct, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise not_json(error) from error
    if not isinstance(document, dict):
        raise BadCommand("body", "is not a JSON object", 'Send {"agent": …, "call": …, "destination": …}')
    check_nesting(document)
    return document


def not_json(error: Exception) -> BadCommand:
    return BadCommand("body", f"is not JSON ({ascii(str(error))[1:200]})", "Send one JSON object in UTF-8")


class Object(dict[str, Any]):
    """A JSON object; `twice` is the first key that stands in it more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = None if len(self) == len(pairs) else first_repeated(name for name, _ in pairs)


def first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of `pairs`; ValueError if a key stands twice."""
    if (name := first_repeated(name for name, _ in pairs)) is not None:
        raise ValueError(f"{name!r} stands twice")
    return dict(pairs)


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def check_nesting(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(DEEPEST_NESTING):
        below: list[Any] = []
        for value in level:
            inner = value.values() if isinstance(value, dict) else value
            below += [item for item in inner if isinstance(item, dict | list)]
        if not below:
            return
        level = below
    raise BadCommand("body", "is nested too deeply", f"Nest at most {DEEPEST_NESTING} objects and arrays")


def parse_key(header: str | None) -> str | None:
    """The Idempotency-Key, which may come in the quotes of a structured field or without.

    (draft-ietf-httpapi-idempotency-key-header-07 asks for the quotes; hardly anybody sends them.)
    """
    if header is None:
        return None
    key = header.strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 1 <= len(key) <= LONGEST_KEY or not (key.isascii() and key.isprintable()):
        raise BadCommand(
            "Idempotency-Key",
            "is empty, too long or not printable ASCII",
            f"Send 1 to {LONGEST_KEY} characters",
        )
    return key


def check_call_id(call_id: str) -> None:
    if not call_id or len(call_id) > LONGEST_ID or not call_id.isprintable():
        raise BadCommand("call id", "is empty, too long or unprintable", "Take it from a notification")


def check_text(field: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise BadCommand(field, "is missing" if value is None else f"is {shown(value)}", "Write a string")
    if not value.strip() or len(value) > limit or not value.isprintable():
        raise BadCommand(
            field, "is empty, too long or unprintable", f"Write 1 to {limit} printable characters"
        )
    return value


def shown(value: object) -> str:
    """A value as an error's text shows it, cut short."""
    return "missing" if value is None else ascii(value)[:60]
