"""``/calls`` finds a call; ``/calls/{id}`` tells its story: legs over time, each step's state and change."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from service.analytics import Statement
from service.api.moments import resolve
from service.api.services import Services
from service.errors import BadInput
from service.events import call_stream, readable, transfer_stream
from service.log import EventLog
from service.projections import Step, call_story
from service.web import timeline
from service.web.copying import curl, sql
from service.web.frame import Frame, asked
from service.web.words import document_text, told, urlpart

RECENT_EVENTS = 400
RECENT_CALLS = 25
AROUND = 40  # steps listed before and after the one looked at
DIGITS = 10  # beyond them no call has a step of that number

EVENTS_OF_CALL = """
SELECT position, recorded_at, kind FROM event_log
WHERE stream IN ($1, $2) ORDER BY position
"""


def call_pages(services: Services, frame: Frame) -> APIRouter:
    router = frame.router()

    @router.get("/calls")
    async def calls(request: Request) -> Response:
        if call_id := asked(request, "id"):
            return RedirectResponse(f"/calls/{urlpart(call_id.strip())}", 303)
        data = {"recent": await recent_calls(services), "live": True}
        return frame.page(request, "calls.html", data)

    @router.get("/calls/{call_id}")
    async def call(request: Request, call_id: str) -> Response:
        data = await call_data(services, call_id, asked(request, "step"), asked(request, "at"))
        ways = [
            curl(request, f"/v1/calls/{urlpart(call_id)}/story", name="curl, the story"),
            curl(
                request,
                f"/v1/calls/{urlpart(call_id)}",
                [("as_of", data["event"].position)],
                "curl, the state",
            ),
            sql(Statement(EVENTS_OF_CALL, (call_stream(call_id), transfer_stream(call_id)))),
        ]
        raw = raw_text(data["event"].payload) if asked(request, "raw") else None
        return frame.page(request, "call.html", {**data, "ways": ways, "raw": raw, "live": True})

    return router


async def recent_calls(services: Services) -> list[dict[str, Any]]:
    """The calls of the log's newest events, the last one first, with what was told of each last."""
    end = await services.log.next_position()
    found: dict[str, dict[str, Any]] = {}
    for event in reversed(await services.log.read(after=end - RECENT_EVENTS - 1)):
        prefix, _, call_id = event.stream.partition("-")
        if prefix in {"call", "transfer"} and call_id not in found:
            found[call_id] = {"call_id": call_id, "event": event, **told(event)}
    return list(found.values())[:RECENT_CALLS]


async def call_data(
    services: Services, call_id: str, step: str | None = None, at: str | None = None
) -> dict[str, Any]:
    """A call at one of its steps, by number from 1 or by moment; by default at the last one."""
    steps = await call_story(services.log, services.queries, call_id)
    transfers = await services.queries.transfers(call_id=call_id, limit=20)
    number = await chosen(services.log, steps, step, at)
    current = steps[number - 1]
    first = max(0, number - AROUND - 1)
    listed = list(enumerate(steps, start=1))[first : number + AROUND]
    legs = [leg for one in steps for leg in one.legs.values()]
    return {
        "call_id": call_id,
        "conn_id": next((leg["conn_id"] for leg in legs if leg["conn_id"]), None),
        "call_type": next((leg["call_type"] for leg in legs if leg["call_type"]), None),
        "begun": steps[0].event.recorded_at,
        "seconds": (steps[-1].event.recorded_at - steps[0].event.recorded_at).total_seconds(),
        "step": number,
        "step_count": len(steps),
        "current": current,
        "event": current.event,
        "told": told(current.event),
        "listed": [(index, one.event, told(one.event), since(steps, index)) for index, one in listed],
        "timeline": timeline.draw(steps, transfers[::-1]),
        "transfers": transfers[::-1],
    }


async def chosen(log: EventLog, steps: Sequence[Step], step: str | None, at: str | None) -> int:
    """The number of the step that a page is to show.

    Raises:
        BadInput: there is none of this number, or `at` is no moment of the log.

    """
    if step is not None:
        if not (step.isdecimal() and len(step) < DIGITS and 1 <= int(step) <= len(steps)):
            raise BadInput("step", f"is {step[:20]!r}", f"Write 1 to {len(steps)}")
        return int(step)
    position = await resolve(log, at)
    if position is None:
        return len(steps)
    return max(1, bisect_right([one.event.position for one in steps], position))


def since(steps: Sequence[Step], number: int) -> float | None:
    """Seconds from the step before to this one."""
    if number == 1:
        return None
    return (steps[number - 1].event.recorded_at - steps[number - 2].event.recorded_at).total_seconds()


def raw_text(payload: bytes) -> str:
    """What GWS or a client sent, as it came; for an event of ours, its fields."""
    shown = readable(payload)
    body: str = shown.get("body") or shown.get("body_base64") or document_text(shown["data"] or {})
    return body
