"""``/v1/analytics``: questions about transfers, each with the same filter as ``/v1/transfers``.

Each answer tells how fresh it is and the SQL behind it, and each figure where its transfers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Depends, Query, Request
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


class Question:
    """What all questions have in common: which transfers, as of when, and the form of the answer."""

    def __init__(
        self, services: Services, request: Request, wanted: TransferFilter, form: str | None
    ) -> None:
        self.wanted = wanted
        self._services = services
        self._request = request
        self._form = form

    async def answer(
        self,
        figures: Sequence[Any],
        statement: Statement,
        *,
        by: str | None = None,
        bucket: Bucket | None = None,
    ) -> Response:
        """Tell `figures`, each with the transfers behind it, and the `statement` that they come from."""
        rows = [msgspec.structs.asdict(figure) for figure in figures]
        zone = self._services.settings.zone
        links = [link(analytics.behind(one, self.wanted, by=by, bucket=bucket, zone=zone)) for one in figures]
        document = {
            "rows": [{**row, "transfers_behind": behind} for row, behind in zip(rows, links, strict=True)],
            "fresh": await analytics.freshness(self._services.database),
            "time_zone": self._services.settings.time_zone,
            "sql": statement.as_sql(),
        }
        return answer(self._request, self._form, document, rows)


def link(wanted: TransferFilter | None) -> str | None:
    """Where the transfers that fit a filter are listed."""
    return None if wanted is None else f"/v1/transfers?{urlencode(wanted.as_query())}"


def analytics_router(services: Services) -> APIRouter:
    router = APIRouter(prefix="/v1/analytics", tags=["analytics"], responses=RESPONSES)
    database = services.database

    async def read(
        request: Request,
        wanted: Filter,
        as_of: AsOf = None,
        min_position: MinPosition = None,
        form: Form = None,
    ) -> Question:
        await caught_up(services.engine, min_position)
        wanted = msgspec.structs.replace(wanted, as_of=await resolve(services.log, as_of))
        return Question(services, request, wanted, form)

    asked: Question = Depends(read)

    @router.get("/counts", summary="Transfers by reason, agent, destination, outcome or any key of userData")
    async def counts(question: Question = asked, by: By = "reason", top: Top = 50) -> Response:
        figures = await analytics.count_transfers(database, question.wanted, by=by, top=top)
        statement = statements.count_transfers(question.wanted, by=by, top=top)
        return await question.answer(figures, statement, by=by)

    @router.get("/over-time", summary="Transfers over time, by a dimension")
    async def over_time(
        question: Question = asked, by: By = "reason", bucket: Bucket = "day", top: Top = 12
    ) -> Response:
        wanted = question.wanted
        figures = await analytics.transfers_over_time(database, wanted, by=by, bucket=bucket, top=top)
        statement = statements.transfers_over_time(wanted, by=by, bucket=bucket, top=top)
        return await question.answer(figures, statement, by=by, bucket=bucket)

    @router.get("/rate", summary="Transferred calls per handled call, and transfers per handled call")
    async def rate(
        question: Question = asked,
        bucket: Annotated[Bucket | None, Query(description="Without it: over the whole time")] = None,
    ) -> Response:
        figures = await analytics.transfer_rate(database, question.wanted, bucket=bucket)
        return await question.answer(figures, statements.transfer_rate(question.wanted, bucket=bucket))

    @router.get("/talk-before-transfer", summary="How long agents talked before: median, p90, histogram")
    async def talk(question: Question = asked, by: OptionalBy = None, top: Top = 12) -> Response:
        figures = await analytics.talk_before_transfer(database, question.wanted, by=by, top=top)
        statement = statements.talk_before_transfer(question.wanted, by=by, top=top)
        return await question.answer(figures, statement, by=by)

    @router.get("/chains", summary="How often calls are transferred on, and back")
    async def chains(question: Question = asked) -> Response:
        figures = await analytics.chains(database, question.wanted)
        return await question.answer(figures, statements.chains(question.wanted))

    @router.get("/pairs", summary="Who transfers to whom, most first")
    async def pairs(
        question: Question = asked, limit: Annotated[int, Query(ge=1, le=1_000)] = 50
    ) -> Response:
        figures = await analytics.pairs(database, question.wanted, limit=limit)
        return await question.answer(figures, statements.pairs(question.wanted, limit=limit))

    @router.get("/hour-of-week", summary="When transfers happen, in the site's time zone")
    async def hour_of_week(question: Question = asked) -> Response:
        figures = await analytics.hour_of_week(database, question.wanted)
        return await question.answer(figures, statements.hour_of_week(question.wanted))

    @router.get("/quality", summary="How far the figures can be trusted")
    async def quality(question: Question = asked) -> Response:
        figures = [await analytics.data_quality(database, question.wanted)]
        return await question.answer(figures, statements.data_quality(question.wanted))

    return router
