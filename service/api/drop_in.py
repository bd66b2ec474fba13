"""``POST /api/v2/me/calls/{id}``: takes and answers exactly what GWS does.

An application changes its base URL and nothing else. "me" is found as GWS finds it, by the request's Basic
credentials; they are checked against the agents that are configured at the moment.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from service.api.problems import problem
from service.errors import BadCommand, NotAuthenticated
from service.gws import answers
from service.recorder import Access
from service.transfers import Outcome, State, TransferHandler, parse_command

DOOR = "gws"
EXAMPLE = {
    "operationName": "SingleStepTransfer",
    "destination": {"phoneNumber": "15002"},
    "userData": {"TransferReason": "Escalation"},
}
GWS_ANSWER = {"application/json": {"schema": {"type": "object"}, "example": {"statusCode": 0}}}


def drop_in(handler: TransferHandler, accesses: Mapping[str, Access], max_request_bytes: int) -> APIRouter:
    """The router for GWS's own path."""
    router = APIRouter(tags=["GWS"])

    @router.post(
        "/api/v2/me/calls/{call_id}",
        summary="SingleStepTransfer, as GWS takes it",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"type": "object"}, "example": EXAMPLE}},
            },
            "security": [{"agent": []}],
        },
        responses={
            200: {"description": "What GWS answered", "content": GWS_ANSWER},
            202: {"description": "Not known yet; see Location", "content": GWS_ANSWER},
        },
        response_class=Response,
    )
    async def operate(
        call_id: str,
        request: Request,
        authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Transfer a call; the answer is GWS's own. `Idempotency-Key` makes a repeated request harmless."""
        user = authenticate(authorization, accesses)
        body = await read_body(request.stream(), max_request_bytes)
        try:
            check_size(body, max_request_bytes)
            command = parse_command(call_id, body, agent=user, caller=user, door=DOOR, key=idempotency_key)
        except BadCommand as error:
            if error.field != "call id":
                await handler.refuse(body[:max_request_bytes], call_id, user, DOOR, error)
            return problem(error)
        return render(await handler.transfer(command))

    return router


def authenticate(authorization: str | None, accesses: Mapping[str, Access]) -> str:
    """The user whose Basic credentials these are (RFC 7617).

    Raises:
        NotAuthenticated: there are none, or they are wrong.

    """
    scheme, _, encoded = (authorization or "").partition(" ")
    try:
        user, colon, password = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        scheme = user = colon = password = ""
    access = accesses.get(user)
    if scheme.lower() != "basic" or not colon or access is None:
        raise NotAuthenticated("Access denied: send the Basic credentials of a configured agent")
    known = access.agent.password.get_secret_value()
    if not hmac.compare_digest(known.encode(), password.encode()):
        raise NotAuthenticated("Access denied: the password is wrong")
    return user


async def read_body(stream: AsyncIterator[bytes], limit: int) -> bytes:
    """Read a body up to a little more than `limit` bytes, so that too much is noticed."""
    body = bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > limit:
            return bytes(body[: limit + 1])
    return bytes(body)


def check_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise BadCommand("body", "is too large", f"Send at most {limit} bytes")


def render(outcome: Outcome) -> Response:
    """The answer for a command: GWS's own where it gave one, else what can be said in its form.

    A repeated request gets the same bytes again, except while the transfer is in doubt: then it is told so.
    """
    transfer = outcome.transfer
    headers = {"Calltrail-Transfer": str(transfer.id), "Calltrail-State": transfer.state}
    if outcome.replayed:
        headers["Idempotent-Replayed"] = "true"
    in_doubt_again = outcome.replayed and transfer.state is State.IN_DOUBT
    if transfer.answer is not None and not in_doubt_again:
        headers["Content-Type"] = transfer.answer.content_type or "application/json"
        return Response(transfer.answer.body, transfer.answer.http_status, headers)
    status, code, message = WITHOUT_ANSWER.get(transfer.state, STILL_OPEN)
    if status == 202:
        headers["Location"] = f"/v1/transfers/{transfer.id}"
    text = f"transfer {transfer.id} is {transfer.state}: {message}"
    return JSONResponse({"statusCode": code, "statusMessage": text}, status, headers)


STILL_OPEN = (202, answers.INCOMPLETE, "see its Location for what becomes of it")
WITHOUT_ANSWER: Mapping[State, tuple[int, int, str]] = {
    State.REJECTED: (503, answers.INTERNAL_ERROR, "GWS could not be reached, nothing was sent"),
    State.CONFIRMED: (200, answers.OK, "GWS gave no answer, the evidence is in its trail"),
    State.FAILED: (500, answers.INTERNAL_ERROR, "GWS gave no answer, the evidence is in its trail"),
}
"""HTTP status, statusCode and text where GWS gave no answer that could be handed on, by state."""
