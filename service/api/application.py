"""The FastAPI application."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.gzip import GZipMiddleware

from service import __version__
from service.api import description, problems
from service.api.analytics import analytics_router
from service.api.caching import ETags
from service.api.calls import calls_router
from service.api.commands import commands_router
from service.api.drop_in import drop_in
from service.api.events import events_router
from service.api.exports import exports_router
from service.api.projections import projections_router
from service.api.redactions import redactions_router
from service.api.replay import replay_router
from service.api.services import Services
from service.api.sessions import sessions_router
from service.api.tap import tap_router
from service.api.texts import storable_parameters
from service.api.tlog import proofs_router, tlog_router
from service.api.transfers import transfers_router

__all__ = ["Services", "create_api"]

GZIP_FROM_BYTES = 1_000


def create_api(services: Services) -> FastAPI:
    """All routes. The documentation pages of FastAPI load scripts from elsewhere, so they are left out.

    An operation is called as its function is, for that is what generated clients call it too.
    """
    app = FastAPI(
        title="calltrail",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    problems.install(app)
    app.add_middleware(ETags)
    app.add_middleware(GZipMiddleware, minimum_size=GZIP_FROM_BYTES)
    app.include_router(drop_in(services.handler, services.accesses, services.settings.max_request_bytes))
    routers = (
        calls_router,
        transfers_router,
        commands_router,
        events_router,
        exports_router,
        sessions_router,
        projections_router,
        replay_router,
        redactions_router,
        analytics_router,
        tap_router,
        tlog_router,
        proofs_router,
    )
    for router in routers:
        app.include_router(router(services), dependencies=[Depends(storable_parameters)])

    @app.get("/healthz", tags=["service"], summary="Whether the service can do its work")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "head": await services.log.next_position() - 1,
            "projections": await services.engine.positions(),
        }

    description.complete(app)
    return app
