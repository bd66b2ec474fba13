"""``/v1/transfers``: the audit's list, and each transfer's trail."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from service.api.filters import Filter
from service.api.moments import AsOf, MinPosition, caught_up, resolve
from service.api.paging import links
from service.api.services import Services
from service.api.tables import RESPONSES, Form, answer
from service.audit.transfers import Sort, list_transfers, transfer_trail
from service.errors import NotFound


def transfers_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["transfers"], responses=RESPONSES)
    database, queries, log = services.database, services.queries, services.log

    @router.get("/transfers", summary="Transfers, newest first, a page at a time")
    async def transfers(
        request: Request,
        wanted: Filter,
        sort: Annotated[Sort, Query(description="With a minus: the last come first")] = "-time",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[
            str | None, Query(max_length=3_000, description="`next` of the page before")
        ] = None,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        """Pages keep to the position at which the first was asked for; ``Link`` leads to the next."""
        await caught_up(services.engine, min_position)
        wanted = msgspec.structs.replace(wanted, as_of=await resolve(log, as_of))
        page = await list_transfers(database, queries, wanted, sort=sort, limit=limit, cursor=cursor)
        headers = {"Link": links(request, "cursor", first="", next=page.next)}
        return answer(request, form, msgspec.structs.asdict(page), page.transfers, headers)

    @router.get("/transfers/{transfer_id}", summary="One transfer's full trail, with its evidence")
    async def transfer(
        request: Request,
        transfer_id: UUID,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        """With `as_of`: as it was known then, from the log alone."""
        await caught_up(services.engine, min_position)
        position = await resolve(log, as_of)
        try:
            trail = await transfer_trail(database, queries, log, transfer_id, position)
        except NotFound:
            await services.handler.journal.call_of(transfer_id)  # is it in the log, ahead of the views?
            await caught_up(services.engine, await log.next_position() - 1)
            trail = await transfer_trail(database, queries, log, transfer_id, position)
        return answer(request, form, trail.document(), [trail.transfer])

    return router
