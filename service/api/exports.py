"""``POST /v1/exports``: transfers as a file, and the fact of it as an event."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import FileResponse
from pydantic import ConfigDict, Field
from starlette.background import BackgroundTask

from service.analytics import TransferFilter
from service.api.filters import Filter
from service.api.services import Services
from service.api.texts import RequestBody
from service.audit.export import BUNDLE, Exporter
from service.audit.selection import Wanted
from service.log.checkpoints import Checkpoints, load_keys

MEDIA_TYPES = {
    "bundle": "application/zip",
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
}


class ExportRequest(RequestBody):
    """In which form, and who asks. Which transfers says the query, as for the list of them."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"format": "bundle", "by": "Ada Auditor"}]},
    )

    format: Literal["bundle", "csv", "jsonl", "parquet", "html", "pdf"] = "bundle"
    by: str = Field(min_length=1, max_length=200, description="Who asks: kept with the export")
    sample: int | None = Field(default=None, ge=1, le=1_000_000, description="Only so many, drawn at random")
    seed: int = Field(default=0, ge=0, le=1 << 31, description="The same seed draws the same sample")


def exports_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["audit"])

    @router.post(
        "/exports",
        summary="Export transfers for an audit",
        response_class=FileResponse,
        responses={
            200: {
                "description": "The file; `Calltrail-Position` is where the log says it was made",
                "content": {
                    kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
                    for kind in MEDIA_TYPES.values()
                },
            }
        },
    )
    async def export(request: ExportRequest, wanted: Filter) -> FileResponse:
        return await exported(services, request, wanted)

    return router


async def exported(services: Services, request: ExportRequest, wanted: TransferFilter) -> FileResponse:
    """The file that was asked for; it is removed when it has been sent."""
    folder = TemporaryDirectory(prefix="calltrail-export-")
    try:
        name = f"transfers.{'zip' if request.format == BUNDLE else request.format}"
        target = Path(folder.name) / name
        keys = load_keys(services.settings.data_dir)
        exporter = Exporter(services.log, Checkpoints(services.database, keys))
        chosen = Wanted(wanted, request.sample, request.seed)
        made = await exporter.export(chosen, request.format, by=request.by, target=target)
    except BaseException:
        folder.cleanup()
        raise
    return FileResponse(
        target,
        media_type=MEDIA_TYPES[request.format],
        filename=name,
        headers={"Calltrail-Position": str(made.position), "Calltrail-Sha256": made.sha256},
        background=BackgroundTask(folder.cleanup),
    )
