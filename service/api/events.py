"""``/v1/events``: the log itself, a page at a time or as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from service.api.paging import links
from service.api.services import Services
from service.errors import NotFound
from service.events import readable
from service.log import EventLog, StoredEvent

KEEP_ALIVE_S = 15.0
HIGHEST = (1 << 63) - 1
Position = Annotated[int, Path(ge=-HIGHEST, le=HIGHEST, description="A position of the log", examples=[42])]
EVENT_STREAM: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}}


def events_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["events"])
    log = services.log

    @router.get(
        "/events",
        summary="The log, a page at a time, or as it grows",
        responses={200: {"content": EVENT_STREAM}},
    )
    async def events(
        request: Request,
        response: Response,
        after: Annotated[int, Query(ge=-1, le=HIGHEST, description="Events after this position")] = -1,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        last_event_id: Annotated[
            int | None, Header(ge=-1, le=HIGHEST, description="Where an event stream broke off")
        ] = None,
    ) -> Any:
        """With ``Accept: text/event-stream`` the events follow as they are recorded, for ever."""
        if "text/event-stream" in request.headers.get("accept", ""):
            begin = after if last_event_id is None else last_event_id
            return StreamingResponse(
                stream(log, begin), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        page = await log.read(after=after, limit=limit)
        next_after = page[-1].position if page else after
        response.headers["Link"] = links(
            request, "after", first="", next=next_after if len(page) == limit else None
        )
        return {
            "events": [document(event) for event in page],
            "next_after": next_after,
            "head": await log.next_position() - 1,
        }

    @router.get("/events/{position}", summary="One event")
    async def event(position: Position) -> dict[str, Any]:
        found = await log.at([position])
        if not found:
            raise NotFound(
                f"there is no position {position}; the log ends at {await log.next_position() - 1}"
            )
        return document(found[0])

    return router


def document(stored: StoredEvent) -> dict[str, Any]:
    """An event as the API gives it."""
    return {**stored.envelope(), **readable(stored.payload)}


async def stream(log: EventLog, after: int) -> AsyncIterator[bytes]:
    """Events as server-sent events, each with its position as id; a comment now and then keeps it alive."""
    while True:
        page = await log.read(after=after)
        for stored in page:
            after = stored.position
            data = msgspec.json.encode(document(stored)).decode()
            yield f"id: {stored.position}\nevent: {stored.kind}\ndata: {data}\n\n".encode()
        if not page and not await log.watch.beyond(after, timeout_s=KEEP_ALIVE_S):
            yield b": still here\n\n"
