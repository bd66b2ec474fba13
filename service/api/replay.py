"""``/v1/replay``: history again in its own tempo; ``/v1/diff``: two moments; a call's story, step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from service.api.events import EVENT_STREAM, document
from service.api.moments import AsOf, MinPosition, caught_up, resolve
from service.api.services import Services
from service.errors import BadInput
from service.events import call_stream
from service.log import EventLog
from service.projections import Step, call_story, difference_between, in_tempo

MOMENT = "A position of the log, or a time in ISO 8601"
Moment = Annotated[str, Query(description=MOMENT, examples=["42", "2026-11-24T09:30:00Z"])]
OptionalMoment = Annotated[str | None, Query(description=MOMENT, examples=["42"])]


def replay_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["replay"])

    @router.get("/calls/{call_id}/story", summary="Each event of a call, the legs after it, what it changed")
    async def story(call_id: str, as_of: AsOf = None, min_position: MinPosition = None) -> dict[str, Any]:
        await caught_up(services.engine, min_position)
        position = await resolve(services.log, as_of)
        steps = [
            step_document(step)
            for step in await call_story(services.log, services.queries, call_id)
            if position is None or step.event.position <= position
        ]
        return {"as_of": position, "call_id": call_id, "steps": steps}

    @router.get("/diff", summary="What differs between two moments")
    async def diff(
        first: Moment,
        second: Moment,
        call_id: str | None = None,
        agent: str | None = None,
        min_position: MinPosition = None,
    ) -> dict[str, Any]:
        await caught_up(services.engine, min_position)
        between = [await resolve(services.log, moment) for moment in (first, second)]
        found = await difference_between(
            services.queries, between[0] or 0, between[1] or 0, call_id=call_id, agent=agent
        )
        return {"first": between[0], "second": between[1], "differences": [one._asdict() for one in found]}

    @router.get(
        "/replay",
        summary="History again, as server-sent events in its own tempo",
        response_class=StreamingResponse,
        responses={200: {"content": EVENT_STREAM}},
    )
    async def replay(
        since: OptionalMoment = None,
        until: OptionalMoment = None,
        speed: Annotated[float, Query(ge=0, description="So many times faster; 0: at once")] = 1.0,
        call_id: str | None = None,
    ) -> StreamingResponse:
        after, upto = await stretch(services.log, since, until)
        stream = call_stream(call_id) if call_id else None

        async def told() -> AsyncIterator[bytes]:
            async for event in in_tempo(services.log, after=after, upto=upto, speed=speed, stream=stream):
                data = msgspec.json.encode(document(event)).decode()
                yield f"id: {event.position}\nevent: {event.kind}\ndata: {data}\n\n".encode()

        return StreamingResponse(
            told(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    return router


async def stretch(log: EventLog, since: str | None, until: str | None) -> tuple[int, int]:
    """The positions (exclusive, inclusive) of what was recorded from `since` until `until`.

    Raises:
        BadInput: one is no moment of the log, or `since` is after `until`.

    """
    begin, end = await resolve(log, since), await resolve(log, until)
    after = -1 if begin is None else begin - 1 if since is not None and since.isdecimal() else begin
    upto = await log.next_position() - 1 if end is None else end
    if since is not None and until is not None and after > upto:
        raise BadInput("since", f"{since} is after {until}", "Write the earlier moment first")
    return after, upto


def step_document(step: Step) -> dict[str, Any]:
    """A step as the API gives it."""
    changed = {
        device: {name: {"before": before, "after": after} for name, (before, after) in change.items()}
        for device, change in step.changed.items()
    }
    return {**document(step.event), "legs": step.legs, "changed": changed}
