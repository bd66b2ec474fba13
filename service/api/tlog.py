"""``/tlog/``: the log as a transparency log (C2SP tlog-tiles): checkpoint, hash tiles, entry bundles.

And ``/v1/proofs``, for those who do not want to compute proofs from tiles themselves.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from service.api.events import HIGHEST, Position
from service.api.services import Services
from service.errors import Malformed, NotFound
from service.log.checkpoints import Checkpoints, load_keys
from service.log.tiles import read_bundle, read_tile
from service.postgres import Database, database_errors
from service.tlog.tiles import BundleId, parse_path

FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
BRIEFLY = {"Cache-Control": "max-age=2"}


def tlog_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/tlog", tags=["transparency log"])
    database: Database = services.log.database

    @router.get(
        "/checkpoint",
        summary="The latest signed checkpoint",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def checkpoint() -> Response:
        keys = load_keys(services.settings.data_dir)
        note = await Checkpoints(database, keys).latest()
        return Response(note.encode(), media_type="text/plain; charset=utf-8", headers=BRIEFLY)

    @router.get(
        "/tile/{path:path}",
        summary="A hash tile, or a bundle of entries",
        response_class=Response,
        responses={
            200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
        },
    )
    async def tile(path: str) -> Response:
        """``tile/<level>/<index>[.p/<width>]`` or ``tile/entries/<index>[.p/<width>]``."""
        try:
            named = parse_path(f"tile/{path}")
        except Malformed as error:
            raise NotFound(str(error)) from error
        with database_errors():
            async with database.pool.acquire() as connection:
                if isinstance(named, BundleId):
                    data = await read_bundle(connection, named)
                else:
                    data = await read_tile(connection, named)
        return Response(data, media_type="application/octet-stream", headers=FOR_EVER)

    return router


def proofs_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/proofs", tags=["transparency log"])

    def checkpoints() -> Checkpoints:
        return Checkpoints(services.log.database, load_keys(services.settings.data_dir))

    @router.get("/consistency", summary="That the log at one size extends the log at another")
    async def consistency(
        old: Annotated[int, Query(ge=0, le=HIGHEST, description="Size of the earlier tree", examples=[10])],
        new: Annotated[int, Query(ge=0, le=HIGHEST, description="Size of the later tree", examples=[42])],
    ) -> dict[str, Any]:
        """The proof of RFC 9162 §2.1.4, to be checked against the roots of two checkpoints."""
        hashes = await checkpoints().consistency(old, new)
        return {"old": old, "new": new, "hashes": [b64encode(one).decode() for one in hashes]}

    @router.get(
        "/{position}",
        summary="Evidence that an event is in the log",
        response_class=Response,
        responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
    )
    async def evidence(position: Position) -> Response:
        """The file that ``calltrail prove`` writes: docs/verify.md says how to check it."""
        proof = await checkpoints().prove(position)
        return Response(proof.encode(), media_type="application/json", headers=BRIEFLY)

    return router
