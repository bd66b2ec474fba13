"""``/v1/calls``: the state of calls, now or as of any moment, and their history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from service.api.events import document
from service.api.moments import AsOf, MinPosition, caught_up, resolve
from service.api.services import Services
from service.errors import NotFound
from service.events import call_stream, transfer_stream
from service.gws import Notification
from service.log import EventLog, StoredEvent
from service.projections import calls_of


def calls_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["calls"])

    @router.get("/calls", summary="Calls that are live, now or as of a moment")
    async def calls(
        as_of: AsOf = None, agent: str | None = None, min_position: MinPosition = None
    ) -> dict[str, Any]:
        await caught_up(services.engine, min_position)
        position = await resolve(services.log, as_of)
        legs = await services.queries.legs(as_of=position, agent=agent)
        return {"as_of": position, "calls": calls_of(legs)}

    @router.get("/calls/{call_id}", summary="One call with its legs, now or as of a moment")
    async def call(call_id: str, as_of: AsOf = None, min_position: MinPosition = None) -> dict[str, Any]:
        await caught_up(services.engine, min_position)
        position = await resolve(services.log, as_of)
        legs = await services.queries.legs(as_of=position, call_id=call_id)
        await with_resources(services.log, legs)
        found = calls_of(legs)
        if not found:
            raise NotFound(f"nothing is known of call {call_id}" + (f" as of {as_of}" if as_of else ""))
        return {"as_of": position, **found[0]}

    @router.get("/calls/{call_id}/history", summary="Every event of a call, in order")
    async def history(call_id: str, as_of: AsOf = None) -> dict[str, Any]:
        position = await resolve(services.log, as_of)
        events = [
            event
            for event in await call_history(services.log, call_id)
            if position is None or event.position <= position
        ]
        if not events:
            raise NotFound(f"nothing is recorded of call {call_id}" + (f" as of {as_of}" if as_of else ""))
        return {"as_of": position, "call_id": call_id, "events": [document(event) for event in events]}

    return router


async def with_resources(log: EventLog, legs: Sequence[dict[str, Any]]) -> None:
    """Give each leg `call`, the whole resource as GWS told it at the leg's `from_position`."""
    told = {event.position: event.payload for event in await log.at([leg["from_position"] for leg in legs])}
    for leg in legs:
        notification = Notification.parse(told.get(leg["from_position"], b"").partition(b"\n")[2])
        call = notification.call if notification else None
        leg["call"] = call.document if call else None


async def call_history(log: EventLog, call_id: str) -> list[StoredEvent]:
    """What GWS said about a call and what was commanded on it, in the order of the log."""
    said, commanded = await asyncio.gather(
        log.read_stream(call_stream(call_id)), log.read_stream(transfer_stream(call_id))
    )
    return sorted(said + commanded, key=lambda event: event.position)
