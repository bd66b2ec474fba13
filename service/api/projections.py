"""``/v1/projections``: how far each view has come, and what it could not digest; ``/v1/coverage``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.api.moments import AsOf, MinPosition, caught_up, resolve
from service.api.services import Services
from service.audit.known import spans_known


def projections_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["projections"])

    @router.get("/projections", summary="Each view's position, lag, heartbeat, and events set aside")
    async def projections() -> dict[str, Any]:
        return {"projections": await services.engine.status()}

    @router.get("/coverage", summary="Every agent's coverage")
    async def coverages(as_of: AsOf = None, min_position: MinPosition = None) -> dict[str, Any]:
        """With `as_of`: as it was known then, from the log alone."""
        await caught_up(services.engine, min_position)
        position = await resolve(services.log, as_of)
        if position is None:
            return {"as_of": None, "agents": await services.queries.coverages()}
        known = await spans_known(services.log, position)
        return {"as_of": position, "agents": [{"agent": one, "spans": spans} for one, spans in known.items()]}

    @router.get("/coverage/{agent}", summary="The spans in which an agent's record is complete, and the gaps")
    async def coverage(agent: str, as_of: AsOf = None, min_position: MinPosition = None) -> dict[str, Any]:
        """With `as_of`: as it was known then, from the log alone."""
        await caught_up(services.engine, min_position)
        position = await resolve(services.log, as_of)
        if position is None:
            spans = await services.queries.coverage(agent)
        else:
            spans = (await spans_known(services.log, position, agent)).get(agent, [])
        return {"as_of": position, "agent": agent, "spans": spans}

    return router
