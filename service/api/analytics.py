"""``/v1/analytics``: questions about transfers, each with the same filter as ``/v1/transfers``.

Each answer tells how fresh it is and the SQL behind it, and each figure where its transfers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from service import analytics
from service.analytics import Bucket, Statement, TransferFilter, statements
from service.api.filters import Filter
from service.api.moments import AsOf, MinPosition, caught_up, resolve
from service.api.services import Services
from service.api.tables import RESPONSES, Form, answer

By = Annotated[
    str,
    Query(
        description="reason, agent, destination, outcome, operation, destination_type, or data. and a key",
        max_length=1_000,
        examples=["reason", "data.Segment"],
    ),
]
OptionalBy = Annotated[str | None, Query(max_length=1_000, examples=["reason"])]
Top = Annotated[int, Query(ge=1, le=1_000, description="Values told by themselves; the others together")]


def analytics_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/analytics", tags=["analytics"], responses=RESPONSES)
    database = services.database
    ask = Asking(services)

    @router.get("/counts", summary="Transfers by reason, agent, destination, outcome or any key of userData")
    async def counts(
        request: Request,
        wanted: Filter,
        by: By = "reason",
        top: Top = 50,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        wanted = await ask.when(wanted, as_of, min_position)
        figures = await analytics.count_transfers(database, wanted, by=by, top=top)
        return await ask.answer(
            request, form, figures, wanted, statements.count_transfers(wanted, by=by, top=top), by=by
        )

    @router.get("/over-time", summary="Transfers over time, by a dimension")
    async def over_time(
        request: Request,
        wanted: Filter,
        by: By = "reason",
        bucket: Bucket = "day",
        top: Top = 12,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        wanted = await ask.when(wanted, as_of, min_position)
        figures = await analytics.transfers_over_time(database, wanted, by=by, bucket=bucket, top=top)
        statement = statements.transfers_over_time(wanted, by=by, bucket=bucket, top=top)
        return await ask.answer(request, form, figures, wanted, statement, by=by, bucket=bucket)

    @router.get("/rate", summary="Transferred calls per handled call, and transfers per handled call")
    async def rate(
        request: Request,
        wanted: Filter,
        bucket: Annotated[Bucket | None, Query(description="Without it: over the whole time")] = None,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        wanted = await ask.when(wanted, as_of, min_position)
        figures = await analytics.transfer_rate(database, wanted, bucket=bucket)
        return await ask.answer(
            request, form, figures, wanted, statements.transfer_rate(wanted, bucket=bucket)
        )

    @router.get("/talk-before-transfer", summary="How long agents talked before: median, p90, histogram")
    async def talk(
        request: Request,
        wanted: Filter,
        by: OptionalBy = None,
        top: Top = 12,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        wanted = await ask.when(wanted, as_of, min_position)
        figures = await analytics.talk_before_transfer(database, wanted, by=by, top=top)
        statement = statements.talk_before_transfer(wanted, by=by, top=top)
        return await ask.answer(request, form, figures, wanted, statement, by=by)

    @router.get("/chains", summary="How often calls are transferred on, and back")
    async def chains(
        request: Request,
        wanted: Filter,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        wanted = await ask.when(wanted, as_of, min_position)
        figures = await analytics.chains(database, wanted)
        return await ask.answer(request, form, figures, wanted, statements.chains(wanted))

    @router.get("/pairs", summary="Who transfers to whom, most first")
    async def pairs(
        request: Request,
        wanted: Filter,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        wanted = await ask.when(wanted, as_of, min_position)
        figures = await analytics.pairs(database, wanted, limit=limit)
        return await ask.answer(request, form, figures, wanted, statements.pairs(wanted, limit=limit))

    @router.get("/hour-of-week", summary="When transfers happen, in the site's time zone")
    async def hour_of_week(
        request: Request,
        wanted: Filter,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        wanted = await ask.when(wanted, as_of, min_position)
        figures = await analytics.hour_of_week(database, wanted)
        return await ask.answer(request, form, figures, wanted, statements.hour_of_week(wanted))

    @router.get("/quality", summary="How far the figures can be trusted")
    async def quality(
        request: Request,
        wanted: Filter,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Response:
        wanted = await ask.when(wanted, as_of, min_position)
        figures = [await analytics.data_quality(database, wanted)]
        return await ask.answer(request, form, figures, wanted, statements.data_quality(wanted))

    return router


class Asking:
    """What all questions have in common: the moment they are about, and the form of the answer."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def when(
        self, wanted: TransferFilter, as_of: str | None, min_position: int | None
    ) -> TransferFilter:
        """The filter as of a moment, once the views have got as far as the request wants."""
        await caught_up(self._services.engine, min_position)
        return msgspec.structs.replace(wanted, as_of=await resolve(self._services.log, as_of))

    async def answer(
        self,
        request: Request,
        form: str | None,
        figures: Sequence[Any],
        wanted: TransferFilter,
        statement: Statement,
        *,
        by: str | None = None,
        bucket: Bucket | None = None,
    ) -> Response:
        rows = [msgspec.structs.asdict(figure) for figure in figures]
        zone = self._services.settings.zone
        linked = [
            {**row, "transfers_behind": link(analytics.behind(one, wanted, by=by, bucket=bucket, zone=zone))}
            for row, one in zip(rows, figures, strict=True)
        ]
        document = {
            "rows": linked,
            "fresh": await analytics.freshness(self._services.database),
            "time_zone": self._services.settings.time_zone,
            "sql": statement.as_sql(),
        }
        return answer(request, form, document, rows)


def link(wanted: TransferFilter | None) -> str | None:
    """Where the transfers that fit a filter are listed."""
    return None if wanted is None else f"/v1/transfers?{urlencode(wanted.as_query())}"
