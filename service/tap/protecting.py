"""SingleStepTransfer through the tap: by the transfers' handler, with the request's own credentials.

GWS is sent the very request of the client, at most once, and the client is given GWS's very answer. What the
client sends again (same Idempotency-Key, or without one the same call and destination while the first is
live) is answered from the first. The request is held in memory as long as GWS may be asked for evidence.

A transfer counts as an agent's only if GWS has let in whoever sent it: the tap has seen GWS answer the same
credentials, or asks it. So nobody learns of another's transfer by naming him.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from service.errors import (
    BadCommand,
    BadHttp,
    CallBusy,
    CalltrailError,
    Conflict,
    DatabaseUnavailable,
    GwsError,
    KeyBusy,
    KeyReused,
    OutcomeUnknown,
)
from service.gws import Answer, answers, dialect
from service.gws.answers import parse_object
from service.tap.asking import Answered, ask
from service.tap.gate import Gate
from service.tap.heads import RequestHead
from service.tap.observing import MOST_KEPT, call_in, operation_in
from service.tap.upstream import Upstream
from service.tap.who import Who, user_in
from service.transfers import Outcome, State, TransferHandler, parse_command

logger = logging.getLogger(__name__)

DOOR = "tap"
BELONGING = frozenset({b"authorization", b"cookie", b"user-agent", b"accept-language"})
"""The fields of a request that a GET for evidence is sent with."""
OWN_BODY = frozenset({b"content-length", b"transfer-encoding", b"content-type", b"expect"})


class Request:
    """GWS as the client's own request reaches it: a `service.transfers.Client` for one transfer."""

    def __init__(self, upstream: Upstream, head: RequestHead, raw: bytes, timeout_s: float) -> None:
        self.answered: Answered | None = None
        self._upstream = upstream
        self._raw = raw
        self._timeout_s = timeout_s
        self._fields = [field.line for field in head.fields if field.name in BELONGING]
        head.for_server(upstream.host)
        self._head = head.render()

    def __repr__(self) -> str:
        return "Request()"

    async def command_call(
        self,
        call_id: str,  # noqa: ARG002 it stands in the request
        body: bytes,  # noqa: ARG002 the same
        *,
        may_send: Callable[[], Awaitable[bool]],
    ) -> Answer:
        request = self._head + self._raw
        self.answered = await ask(self._upstream, request, b"POST", self._timeout_s, may_send=may_send)
        return answer_of(self.answered)

    async def call(self, call_id: str) -> Answer:
        return answer_of(await self.get(dialect.call_path(call_id)))

    async def get(self, path: str) -> Answered:
        first = [f"GET {path} HTTP/1.1".encode(), b"Host: " + self._upstream.authority, b"Connection: close"]
        request = b"\r\n".join([*first, *self._fields, b"", b""])
        return await ask(self._upstream, request, b"GET", self._timeout_s)


def answer_of(answered: Answered) -> Answer:
    return Answer.of(answered.head.status, answered.head.text(b"content-type") or "", answered.content)


class Protector:
    """Answers transfers; everything else about calls it leaves to be passed on."""

    most = MOST_KEPT

    def __init__(
        self, upstream: Upstream, handler: TransferHandler, who: Who, gate: Gate, *, timeout_s: float
    ) -> None:
        self._upstream = upstream
        self._handler = handler
        self._who = who
        self._gate = gate
        self._timeout_s = timeout_s

    def wants(self, request: RequestHead) -> bool:
        """Whether a request may be a transfer; its body will tell."""
        call_id = call_in(request.path)
        return request.method == b"POST" and request.path == f"{dialect.MY_CALLS}/{call_id}"

    async def answer(self, request: RequestHead, body: bytes, raw: bytes) -> bytes | None:
        """The answer to a transfer; None for what is to be passed on.

        Raises:
            BadHttp: it can be neither protected nor passed on.

        """
        call_id = call_in(request.path)
        if call_id is None or operation_in(parse_object(body)) != dialect.SINGLE_STEP_TRANSFER:
            return None
        closing = request.closes
        own = Request(self._upstream, request, raw, self._timeout_s)
        agent = await self._agent(request, own)
        if agent is None:
            return None  # GWS says itself that it does not know him
        key = request.text(b"idempotency-key")
        try:
            command = parse_command(call_id, body, agent=agent, caller=agent, door=DOOR, key=key)
        except BadCommand:
            return None  # GWS says itself what is wrong
        if not self._gate.is_open:
            self._gate.check()
            return None
        try:
            transferring = asyncio.create_task(self._handler.transfer(command, through=own))
            outcome = await asyncio.shield(transferring)
        except DatabaseUnavailable as error:
            self._gate.interrupt(str(error))
            self._gate.check()
            return None
        except CalltrailError as error:
            return render_error(error, closing=closing)
        if own.answered is not None and not outcome.replayed:
            own.answered.head.for_client(closing=closing)
            return own.answered.head.render() + own.answered.raw
        return render(outcome, closing=closing)

    async def _agent(self, request: RequestHead, own: Request) -> str | None:
        """Who sends a transfer, as GWS has it; None if GWS does not let him in.

        Raises:
            BadHttp: 502, GWS does not answer. Nothing was sent that could transfer a call.

        """
        visitor = self._who.visitor(request)
        if visitor.agent is not None and self._who.is_let_in(request):
            return visitor.agent
        try:
            answered = await own.get(dialect.ME)
        except GwsError as error:
            raise BadHttp(502, f"the server does not say who sends this ({error})") from error
        if answered.head.status != 200:
            return None
        self._who.let_in(request)
        named = user_in(answered.content)
        return visitor.agent or named


def render(outcome: Outcome, *, closing: bool) -> bytes:
    """The answer to a request that was not answered by GWS itself just now, in GWS's form."""
    transfer = outcome.transfer
    more = {"Calltrail-Transfer": str(transfer.id), "Calltrail-State": str(transfer.state)}
    if outcome.replayed:
        more["Idempotent-Replayed"] = "true"
    if transfer.answer is not None and not (outcome.replayed and transfer.state is State.IN_DOUBT):
        answer = transfer.answer
        content_type = answer.content_type or "application/json"
        return written(answer.http_status, content_type, answer.body, more, closing=closing)
    status, code, text = WITHOUT_ANSWER.get(transfer.state, STILL_OPEN)
    return said(status, code, f"transfer {transfer.id} is {transfer.state}: {text}", more, closing=closing)


STILL_OPEN = (504, answers.INCOMPLETE, "whether it happened is not known yet; it is not sent again")
WITHOUT_ANSWER: Mapping[State, tuple[int, int, str]] = {
    State.REJECTED: (503, answers.INTERNAL_ERROR, "GWS could not be reached, nothing was sent"),
    State.CONFIRMED: (200, answers.OK, "GWS gave no answer, the evidence is in its trail"),
    State.FAILED: (500, answers.INTERNAL_ERROR, "GWS gave no answer, the evidence is in its trail"),
}
"""HTTP status, statusCode and text where GWS gave no answer that could be handed on, by state."""

ERRORS: Mapping[type[CalltrailError], tuple[int, int]] = {
    CallBusy: (409, answers.INVALID),
    KeyBusy: (409, answers.INCOMPLETE),
    KeyReused: (422, answers.INVALID),
    Conflict: (409, answers.INVALID),
    OutcomeUnknown: (504, answers.INCOMPLETE),
    CalltrailError: (500, answers.INTERNAL_ERROR),
}
"""HTTP status and statusCode by error class; a subclass without an entry has its parent's."""


def render_error(error: CalltrailError, *, closing: bool) -> bytes:
    status, code = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    return said(status, code, str(error), {}, closing=closing)


def said(status: int, code: int, text: str, more: Mapping[str, str], *, closing: bool) -> bytes:
    body = json.dumps({"statusCode": code, "statusMessage": text}).encode()
    return written(status, "application/json", body, more, closing=closing)


def written(status: int, content_type: str, body: bytes, more: Mapping[str, str], *, closing: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {PHRASES.get(status, 'Answered')}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in more.items()),
        *(["Connection: close"] if closing else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


PHRASES = {200: "OK", 409: "Conflict", 422: "Unprocessable Content", 500: "Internal Server Error"}
PHRASES |= {503: "Service Unavailable", 504: "Gateway Timeout"}
