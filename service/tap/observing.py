"""What an application commands, as events: operation, parameters and GWS's answer, never a credential.

Every POST below ``/api/v2/me`` is a command. Request and answer are kept byte for byte; where a key in their
JSON names a secret, they are written anew with its value masked, and what is no JSON object is left out.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from service.errors import ProtocolViolation
from service.events import CommandObserved, call_stream, encode
from service.gws import dialect
from service.gws.answers import Answer, parse_object
from service.gws.messages import LONGEST_ID
from service.log import NewEvent, Producer
from service.tap.exchange import Exchange
from service.tap.gate import Gate
from service.tap.heads import Head
from service.tap.reading import inflate
from service.tap.who import Visitor

MOST_KEPT = 256 << 10  # bytes of a request, and of an answer
SECRET = re.compile(r"passw|secret|token|credential|authoriz|api.?key|session.?id|\bpin\b", re.IGNORECASE)
MASK = "***"
STREAM = "commands"
"""Where commands stand that name no call."""
_CALL = re.compile(re.escape(dialect.MY_CALLS) + "/([^/]+)")
LONGEST_NAME = 200  # characters of an operation's name and of a path


def is_command(method: bytes, path: str) -> bool:
    return method == b"POST" and (path == dialect.ME or path.startswith(dialect.ME + "/"))


def call_in(path: str) -> str | None:
    """The call that a command's path names."""
    matched = _CALL.match(path)
    call_id = matched[1] if matched else None
    return call_id if call_id and call_id.isprintable() and len(call_id) <= LONGEST_ID else None


def operation_in(document: dict[str, Any] | None) -> str | None:
    name = (document or {}).get("operationName")
    return name[:LONGEST_NAME] if isinstance(name, str) and name.isprintable() else None


class CommandSeen:
    """The interest in one command: its answer is given to the client when it is recorded."""

    keep_request = keep_answer = MOST_KEPT
    holds = True

    def __init__(self, gate: Gate, visitor: Visitor) -> None:
        self._gate = gate
        self._visitor = visitor

    def asked(self, exchange: Exchange) -> None: ...

    async def ended(self, exchange: Exchange) -> None:
        """Record it. GWS has done it, or may have: so its answer is passed on whatever the policy is."""
        await self._gate.record([observed(exchange, self._visitor)])


def observed(exchange: Exchange, visitor: Visitor) -> NewEvent:
    """The event of a command."""
    request, response, answer = exchange.request, exchange.response, exchange.answer
    left_out: list[str] = []
    asked = kept(request, exchange.asked.kept, "request", left_out)
    whole = response is not None and answer is not None and answer.done
    answered = b""
    status_code = None
    if response is not None and answer is not None and whole:
        answered = kept(response, answer.kept, "answer", left_out)
        status_code = Answer.of(response.status, "", answered).status_code
    call_id = call_in(request.path)
    event = CommandObserved(
        agent=visitor.agent,
        session=visitor.session,
        method=request.method.decode(),
        path=request.path[:LONGEST_NAME].encode(errors="replace").decode(),
        at=datetime.now(UTC),
        operation=operation_in(parse_object(asked)),
        call_id=call_id,
        http_status=response.status if response is not None and whole else None,
        status_code=status_code,
        left_out=tuple(dict.fromkeys(left_out)),
    )
    body = b"[%s,%s]" % (asked or b"null", answered or b"null")
    stream = STREAM if call_id is None else call_stream(call_id)
    return NewEvent(Producer.new().key, stream, event.kind(), encode(event, body))


def kept(head: Head, content: bytes | None, what: str, left_out: list[str]) -> bytes:
    """What is kept of a body; what is not is named in `left_out`."""
    if content == b"":
        return b""
    try:
        plain = inflate(content or b"", head.text(b"content-encoding"))
        document = json.loads(plain) if content is not None else None
    except (ProtocolViolation, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        left_out.append(what)
        return b""
    secrets: list[str] = []
    masked = mask(document, secrets)
    if not secrets:
        return plain
    left_out += secrets
    return json.dumps(masked).encode()


def mask(value: Any, found: list[str]) -> Any:
    """A parsed value with the values of secret keys masked; the keys are added to `found`."""
    if isinstance(value, dict):
        masked = {}
        for name, inner in value.items():
            if SECRET.search(name):
                found.append(name[:LONGEST_NAME])
                masked[name] = MASK
            else:
                masked[name] = mask(inner, found)
        return masked
    return [mask(item, found) for item in value] if isinstance(value, list) else value
