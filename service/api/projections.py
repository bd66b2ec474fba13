"""``/v1/projections``: how far each view has come, and what it could not digest; ``/v1/coverage``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.api.moments import MinPosition, caught_up
from service.api.services import Services


def projections_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["projections"])

    @router.get("/projections", summary="Each view's position, lag, heartbeat, and events set aside")
    async def projections() -> dict[str, Any]:
        return {"projections": await services.engine.status()}

    @router.get("/coverage", summary="Every agent's coverage")
    async def coverages(min_position: MinPosition = None) -> dict[str, Any]:
        await caught_up(services.engine, min_position)
        return {"agents": await services.queries.coverages()}

    @router.get("/coverage/{agent}", summary="The spans in which an agent's record is complete, and the gaps")
    async def coverage(agent: str, min_position: MinPosition = None) -> dict[str, Any]:
        await caught_up(services.engine, min_position)
        return {"agent": agent, "spans": await services.queries.coverage(agent)}

    return router
