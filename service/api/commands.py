"""``POST /v1/transfers`` and ``…/settlement``: commands that do not come as a GWS request."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field

from service.api.drop_in import check_size, read_body
from service.api.problems import problem
from service.api.services import Services
from service.api.texts import RequestBody
from service.errors import BadCommand
from service.gws.messages import LONGEST_ID
from service.transfers import Abandon, Finding, Outcome, Settle, build_body, parse_command
from service.transfers.command import LONGEST_NUMBER, TransferCommand, check_text, distinct_object

DOOR = "api"
UNNAMED = "unnamed"
"""Where refused commands are kept of which no call can be told."""
FIELDS = frozenset({"agent", "call", "destination", "location", "userData"})
LONGEST_WAIT_S = 60
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["agent", "call", "destination"],
    "additionalProperties": False,
    "examples": [
        {
            "agent": "15000",
            "call": "01RCC3N118B1V0SL8O7GK2LAES00000G",
            "destination": "15002",
            "userData": {"TransferReason": "Escalation"},
        }
    ],
    "properties": {
        "agent": {"type": "string", "description": "User name of the agent who has the call"},
        "call": {"type": "string", "description": "The call's id, as notifications name it"},
        "destination": {"type": "string", "description": "The number to transfer to"},
        "location": {"type": "string", "description": "Where the destination is, for another T-Server"},
        "userData": {"type": "object", "description": "Attached to the call, e.g. the reason"},
    },
}


class Settlement(RequestBody):
    """A person's decision on a transfer that evidence has not settled."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"outcome": "confirmed", "by": "Ada", "why": "the caller says so"}]},
    )

    outcome: Literal["confirmed", "failed", "abandoned"]
    by: str = Field(min_length=1, max_length=200, description="Who decides")
    why: str = Field(min_length=1, max_length=2000, description="On what grounds")


def commands_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["transfers"])
    handler, limit = services.handler, services.settings.max_request_bytes

    @router.post(
        "/transfers",
        summary="Transfer a call",
        status_code=201,
        responses={code: {"description": text} for code, text in ANSWERS.items()},
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": SCHEMA}}}
        },
    )
    async def command_transfer(
        request: Request,
        idempotency_key: Annotated[str | None, Header()] = None,
        prefer: Annotated[str | None, Header(description="respond-async, wait=N (RFC 7240)")] = None,
    ) -> Response:
        """Transfer a call and say how it stands when GWS has answered.

        With ``Prefer: respond-async`` it is queued and answered at once; ``wait=N`` waits up to N seconds.
        """
        body = await read_body(request.stream(), limit)
        try:
            check_size(body, limit)
            command = read_command(body, idempotency_key)
        except BadCommand as error:
            await handler.refuse(body[:limit], UNNAMED, DOOR, DOOR, error)
            return problem(error)
        return render(await handler.transfer(command, wait_s=waiting(prefer)))

    @router.post("/transfers/{transfer_id}/settlement", summary="Settle or abandon a transfer in doubt")
    async def settle(transfer_id: UUID, settlement: Settlement) -> dict[str, Any]:
        """A person's decision; it becomes an event with the person's name on it."""
        outcome = await handler.settle(transfer_id, decision(transfer_id, **settlement.model_dump()))
        return document_of(outcome) | {"state": outcome.transfer.state}

    return router


ANSWERS = {
    202: "Not known yet; see Location",
    400: "A field is wrong",
    403: "The agent is not configured",
    409: "Another transfer of the call, or the first with this key, is still running",
    422: "The Idempotency-Key belongs to another request",
    503: "The database is away; ask again with the same key",
}


def read_command(body: bytes, key: str | None) -> TransferCommand:
    """The command in the body of ``POST /v1/transfers``.

    Raises:
        BadCommand: names the field that is wrong.

    """
    document = distinct_object(body)
    if unknown := sorted(set(document) - FIELDS):
        known = ", ".join(sorted(FIELDS))
        raise BadCommand(ascii(unknown[0])[:60], "is not a field of a transfer", f"Known are {known}")
    agent = check_text("agent", document.get("agent"), LONGEST_NUMBER)
    call_id = check_text("call", document.get("call"), LONGEST_ID)
    destination = check_text("destination", document.get("destination"), LONGEST_NUMBER)
    gws_body = build_body(destination, document.get("location"), document.get("userData"))
    return parse_command(call_id, gws_body, agent=agent, caller=DOOR, door=DOOR, key=key)


def decision(transfer_id: UUID, outcome: str, by: str, why: str) -> Settle | Abandon:
    """The command for a person's `outcome`: ``confirmed``, ``failed`` or ``abandoned``."""
    if outcome == "abandoned":
        return Abandon(transfer_id, by, why)
    return Settle(transfer_id, Finding(outcome == "confirmed", "a person's decision", (), by, why))


def waiting(prefer: str | None) -> float | None:
    """How long the caller wants to wait for the outcome, in seconds; None: as long as it takes.

    ``wait`` wins over ``respond-async``; anything else in the header is not for us (RFC 7240 §2).
    """
    text = (prefer or "").lower()
    if found := re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", text):
        return float(min(int(found[1]), LONGEST_WAIT_S))
    return 0.0 if re.search(r"(?:^|[,;\s])respond-async\b", text) else None


def render(outcome: Outcome) -> Response:
    """201 with what GWS said, the same again for a repetition; 202 while that, or what happened, is open."""
    transfer = outcome.transfer
    headers = {"Location": f"/v1/transfers/{transfer.id}", "Calltrail-Transfer": str(transfer.id)}
    headers["Calltrail-State"] = transfer.state
    if outcome.replayed:
        headers["Idempotent-Replayed"] = "true"
    return JSONResponse(document_of(outcome), 202 if transfer.is_open else 201, headers)


def document_of(outcome: Outcome) -> dict[str, Any]:
    """A transfer as its caller is told; what is answered once does not change with what comes later."""
    transfer = outcome.transfer
    answer = transfer.answer
    return {
        "transfer_id": str(transfer.id),
        "call_id": transfer.request.call_id,
        "state": transfer.answered_as or transfer.state,
        "status_code": answer.status_code if answer else None,
        "message": answer.message if answer else None,
        "warnings": list(transfer.request.warnings),
    }
