"""``/v1/events/{position}/proof``: one event, provable to anybody who trusts the log's public key."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from service.api.services import Services
from service.log.checkpoints import Checkpoints, load_keys


def proofs_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["transparency log"])

    @router.get("/events/{position}/proof", summary="The proof of one event", response_class=Response)
    async def proof(position: int) -> Response:
        """What `calltrail prove` writes and `calltrail verify` checks."""
        keys = load_keys(services.settings.data_dir)
        evidence = await Checkpoints(services.database, keys).prove(position)
        return Response(evidence.encode(), media_type="application/json")

    return router
