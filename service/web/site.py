"""The whole HTTP face: the API, and the pages over it."""

from __future__ import annotations

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response

from service.api import Services, create_api
from service.api.texts import storable_parameters
from service.errors import NotFound
from service.web.calls import call_pages
from service.web.frame import FOR_EVER, Frame
from service.web.integrity import Verifications
from service.web.live import live_events
from service.web.now import now_page
from service.web.reasons import reasons_page
from service.web.transfers import transfer_pages
from service.web.trust import trust_page


def create_site(services: Services) -> FastAPI:
    """The API of `services` with the pages beside it."""
    app = create_api(services)
    frame, verifications = Frame(), Verifications(services)
    for router in (
        now_page(services, frame, verifications),
        call_pages(services, frame),
        transfer_pages(services, frame),
        reasons_page(services, frame),
        trust_page(services, frame, verifications),
        live_events(services),
    ):
        app.include_router(router, dependencies=[Depends(storable_parameters)])

    @app.get("/static/{name}", include_in_schema=False)
    async def static(request: Request, name: str) -> Response:
        if name not in frame.assets:
            raise NotFound(f"there is no file {name}")
        return frame.assets[name].answer(request, cache=FOR_EVER)

    @app.get("/favicon.ico", include_in_schema=False)
    async def favicon(request: Request) -> Response:
        return frame.assets["favicon.svg"].answer(request, cache=FOR_EVER)

    return app
