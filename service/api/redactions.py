"""``/v1/redactions`` and ``/v1/holds``: personal data blanked on request, and what forbids it."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime, ConfigDict, Field

from service.api.services import Services
from service.api.texts import RequestBody
from service.errors import BadInput
from service.log import rfc3339
from service.redaction import (
    Fields,
    Hold,
    Order,
    Plan,
    Redactor,
    Scope,
    list_holds,
    list_redactions,
    place_hold,
    release_hold,
)

Text = Annotated[str, Field(min_length=1, max_length=2000)]


class Redaction(RequestBody):
    """An order to blank fields of a call."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "call_id": "01RCC3N118B1V0SL8O7GK2LAES00000G",
                    "fields": ["userData.*"],
                    "by": "Ada",
                    "why": "request of 3 May",
                }
            ]
        },
    )

    call_id: Text
    fields: list[Text] = Field(min_length=1, max_length=100, examples=[["userData.*"]])
    by: Text = Field(description="Who asks")
    why: Text
    approved_by: Text | None = Field(default=None, description="A second person")
    confirm: bool = Field(default=False, description="false: only say what would be blanked")


class NewHold(RequestBody):
    """A legal hold; what is left out does not narrow its scope."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"case": "C-17", "by": "Ada", "why": "letter of the court", "agent": "15000"}]
        },
    )

    case: Text
    by: Text
    why: Text
    call_id: Text | None = None
    agent: Text | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    everything: bool = Field(default=False, description="Must be true where no scope is given")


class Release(RequestBody):
    """The end of a hold."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "Ada", "why": "case closed"}]})

    by: Text
    why: Text
    approved_by: Text | None = None


def redactions_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["redaction"])
    log = services.log
    redactor = Redactor(services.database, log, services.engine)

    @router.post(
        "/redactions",
        summary="Blank fields of a call, or say what that would blank",
        responses={
            201: {"description": "Blanked"},
            404: {"description": "Nothing is recorded of the call"},
            409: {"description": "A legal hold, or a transfer that is not concluded, forbids it"},
        },
    )
    async def redact(redaction: Redaction) -> Response:
        """Without ``confirm`` nothing is changed. Ordering the same again is harmless."""
        order = Order(
            redaction.call_id, Fields(redaction.fields), redaction.by, redaction.why, redaction.approved_by
        )
        if not redaction.confirm:
            return JSONResponse({"redacted": False, **plan_document(await redactor.plan(order))})
        outcome = await redactor.redact(order)
        done = {"redacted": True, "recorded_at_positions": list(outcome.positions)}
        return JSONResponse({**done, **plan_document(outcome.plan)}, 201)

    @router.get("/redactions", summary="Every redaction, and every one that was refused")
    async def redactions(call_id: str | None = None) -> dict[str, Any]:
        return {"redactions": await list_redactions(log, call_id)}

    @router.post("/holds", summary="Place a legal hold", status_code=201)
    async def place(hold: NewHold) -> dict[str, Any]:
        scope = Scope(hold.call_id, hold.agent, hold.since, hold.until)
        if scope == Scope() and not hold.everything:
            raise BadInput(
                "everything", "is false, and no scope is given", "Name call, agent or a time range"
            )
        placed = await place_hold(log, hold.case, scope, who=hold.by, why=hold.why)
        return {"hold_id": str(placed.hold_id)}

    @router.get("/holds", summary="Every legal hold, and whether it still stands")
    async def holds() -> dict[str, Any]:
        return {"holds": [hold_document(hold) for hold in (await list_holds(log)).holds]}

    @router.post("/holds/{hold_id}/release", summary="Release a legal hold")
    async def release(hold_id: UUID, wish: Release) -> dict[str, Any]:
        released = await release_hold(log, hold_id, who=wish.by, why=wish.why, approved_by=wish.approved_by)
        return {"hold_id": str(released.hold_id), "released_by": released.who}

    return router


def plan_document(plan: Plan) -> dict[str, Any]:
    """What a redaction changes, as the faces show it."""
    return {
        "events": sorted(plan.payloads),
        "fields": dict(plan.fields),
        "remaining": dict(plan.remaining),
        "dictionaries": list(plan.dictionaries),
        "hold": None if plan.hold is None else hold_document(plan.hold),
    }


def hold_document(hold: Hold) -> dict[str, Any]:
    placed, released = hold.placed, hold.released
    return {
        "hold_id": str(placed.hold_id),
        "case": placed.case,
        "placed_by": placed.who,
        "placed_at": rfc3339(hold.placed_at),
        "why": placed.why,
        "call_id": placed.call_id,
        "agent": placed.agent,
        "since": None if placed.since is None else rfc3339(placed.since),
        "until": None if placed.until is None else rfc3339(placed.until),
        "released_by": None if released is None else released.who,
        "released_at": None if hold.released_at is None else rfc3339(hold.released_at),
    }
