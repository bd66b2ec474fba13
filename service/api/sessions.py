"""``/v1/sessions``: where each agent's CometD session stands."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from service.api.services import Services
from service.recorder import list_sessions


def sessions_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @router.get("", summary="Where each agent's session stands, and why")
    async def sessions(status: str | None = None) -> dict[str, Any]:
        """All processes' sessions on this database. `alive_at`: up to here nothing was missed."""
        return {"sessions": await list_sessions(services.database, status)}

    return router
