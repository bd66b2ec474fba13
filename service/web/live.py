"""``/live``: tells a page, by server-sent events, when there is something new to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from service.api.services import Services

KEEP_ALIVE_S = 3.0  # also how soon it is noticed that nobody listens any more
VIEWS_WITHIN_S = 2.0
REST_S = 1.0  # between two messages, however fast the log grows


def live_events(services: Services) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/live")
    async def live() -> StreamingResponse:
        """Each message is the position that the views have reached."""
        return StreamingResponse(
            heads(services), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    return router


async def heads(services: Services) -> AsyncIterator[bytes]:
    """For ever: the log's end, once the views have it; a comment now and then keeps the connection."""
    seen = await services.log.next_position() - 1
    yield f"data: {seen}\n\n".encode()
    while True:
        if not await services.log.watch.beyond(seen, timeout_s=KEEP_ALIVE_S):
            yield b": still here\n\n"
            continue
        seen = await services.log.next_position() - 1
        await services.engine.reached(seen, timeout_s=VIEWS_WITHIN_S)
        yield f"data: {seen}\n\n".encode()
        await asyncio.sleep(REST_S)
