"""``GET /v1/tap``: how the tap stands, and whether what passes is recorded."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.api.services import Services
from service.errors import NotFound


def tap_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["service"])

    @router.get("/tap", summary="How the tap of this process stands")
    async def tap() -> dict[str, Any]:
        """Clients, sessions, what was recorded, and since when it is interrupted if it is."""
        if services.tap is None:
            raise NotFound("this process has no tap: start it with --tap URL")
        return services.tap.status()

    return router
