"""``/v1/transfers``: the audit trails."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from service.api.moments import MinPosition, caught_up, zoned
from service.api.services import Services
from service.errors import NotFound
from service.projections import TransferFilter


def transfers_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["transfers"])

    @router.get("/transfers", summary="Transfers, newest first")
    async def transfers(
        call_id: str | None = None,
        agent: str | None = None,
        destination: str | None = None,
        reason: str | None = None,
        outcome: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before_position: int | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        min_position: MinPosition = None,
    ) -> dict[str, Any]:
        await caught_up(services.engine, min_position)
        wanted = TransferFilter(
            call_id, agent, destination, reason, outcome, zoned(since), zoned(until), before_position
        )
        return {"transfers": await services.queries.transfers(wanted, limit=limit)}

    @router.get("/transfers/{transfer_id}", summary="One transfer's audit trail")
    async def transfer(transfer_id: UUID, min_position: MinPosition = None) -> dict[str, Any]:
        await caught_up(services.engine, min_position)
        try:
            return await services.queries.transfer(transfer_id)
        except NotFound:
            await services.handler.journal.call_of(transfer_id)  # is it in the log, ahead of the view?
            await caught_up(services.engine, await services.log.next_position() - 1)
            return await services.queries.transfer(transfer_id)

    return router
