"""``/transfers``: a list to filter, sort and page; ``/transfers/{id}``: one trail and its evidence."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ValidationError

from service.analytics import TransferFilter, reasons_known
from service.api.exports import MEDIA_TYPES, ExportRequest, exported
from service.api.filters import Filter
from service.api.moments import resolve
from service.api.services import Services
from service.audit.transfers import Sort, list_statement, list_transfers, transfer_trail
from service.errors import BadInput, NotFound
from service.events import CATALOGUE, TransferStep
from service.web.copying import curl, sql
from service.web.forms import form_of
from service.web.frame import Frame, asked, read_body
from service.web.trust import check_origin

PAGE = 50
LARGEST_FORM = 20_000  # bytes
OUTCOMES = (
    *(kind.step for kind in CATALOGUE.values() if issubclass(kind, TransferStep)),
    "observed",
    "recalled",
)


def transfer_pages(services: Services, frame: Frame) -> APIRouter:
    router = frame.router()

    @router.get("/transfers")
    async def transfers(request: Request, wanted: Filter) -> Response:
        sort = cast("Sort", asked(request, "sort") or "-time")
        cursor = asked(request, "cursor")
        data = await transfers_data(services, wanted, sort, cursor)
        ways = [
            curl(request, "/v1/transfers", [*wanted.as_query(), ("sort", asked(request, "sort"))]),
            sql(list_statement(wanted, sort=sort, limit=PAGE)),
        ]
        return frame.page(
            request,
            "transfers.html",
            {
                **data,
                **form_of(wanted),
                "query": urlencode(wanted.as_query()),
                "ways": ways,
                "live": cursor is None,
            },
        )

    @router.post("/transfers/export")
    async def export(request: Request, wanted: Filter) -> Response:
        check_origin(request)
        body = await read_body(request, LARGEST_FORM)
        return await exported(services, read_export(dict(parse_qsl(body.decode(errors="replace")))), wanted)

    @router.get("/transfers/{transfer_id}")
    async def transfer(request: Request, transfer_id: str) -> Response:
        as_of = asked(request, "as_of")
        position = await resolve(services.log, as_of)
        trail = await transfer_trail(
            services.database, services.queries, services.log, read_id(transfer_id), position
        )
        ways = [
            curl(request, f"/v1/transfers/{transfer_id}", [("as_of", as_of)]),
            sql(list_statement(TransferFilter(call_id=trail.transfer["call_id"]), sort="time")),
        ]
        return frame.page(
            request,
            "transfer.html",
            {
                "trail": trail,
                "transfer": trail.transfer,
                "as_of": as_of,
                "ways": ways,
                "live": as_of is None,
            },
        )

    return router


async def transfers_data(
    services: Services, wanted: TransferFilter, sort: Sort = "-time", cursor: str | None = None
) -> dict[str, Any]:
    """A page of the list, and what its filter offers to choose from."""
    page = await list_transfers(
        services.database, services.queries, wanted, sort=sort, limit=PAGE, cursor=cursor
    )
    return {
        "page": page,
        "sort": sort,
        "cursor": cursor,
        "reasons": await reasons_known(services.database),
        "outcomes": OUTCOMES,
        "formats": tuple(MEDIA_TYPES),
    }


def read_export(fields: dict[str, str]) -> ExportRequest:
    """The export that a form asks for.

    Raises:
        BadInput: names the field that cannot be what it says.

    """
    try:
        return ExportRequest.model_validate({name: value for name, value in fields.items() if value})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(str(first["loc"][0]), first["msg"], "Correct it in the form") from None


def read_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"there is no transfer {text[:60]}") from None
