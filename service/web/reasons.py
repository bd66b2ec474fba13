"""``/reasons``: why, when, from whom and to whom calls are transferred; figures lead to their transfers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response
from msgspec.structs import replace

from service.analytics import (
    BUCKETS,
    COLUMNS,
    Bucket,
    Point,
    TransferFilter,
    chains,
    count_transfers,
    data_quality,
    hour_of_week,
    pairs,
    reasons_known,
    statements,
    talk_before_transfer,
    transfer_rate,
    transfers_over_time,
)
from service.api.filters import Filter
from service.api.services import Services
from service.web import charts
from service.web.copying import curl, sql
from service.web.forms import form_of
from service.web.frame import Frame, address, asked

LATELY_DAYS = 30
TOP = 12
PAIRS = 25
IN_FORM = ("since", "until", "agent", "reason")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def reasons_page(services: Services, frame: Frame) -> APIRouter:
    router = frame.router()

    @router.get("/reasons")
    async def reasons(request: Request, asked_for: Filter) -> Response:
        wanted = lately(asked_for, services.settings.zone)
        by, bucket = asked(request, "by") or "reason", asked(request, "bucket")
        data = await reasons_data(services, wanted, by, bucket)
        given = wanted.as_query()
        ways = [
            curl(request, "/v1/analytics/counts", [*given, ("by", by)], f"curl, by {by}"),
            curl(request, "/v1/analytics/pairs", given, "curl, agent to destination"),
            sql(statements.count_transfers(wanted, by=by, top=TOP), f"SQL, by {by}"),
            sql(
                statements.transfers_over_time(wanted, by=by, bucket=data["bucket"], top=TOP),
                "SQL, over time",
            ),
            sql(statements.pairs(wanted, limit=PAIRS), "SQL, agent to destination"),
            sql(statements.hour_of_week(wanted), "SQL, hours of the week"),
            sql(statements.talk_before_transfer(wanted, by=by, top=TOP), "SQL, talk before transfer"),
        ]
        return frame.page(
            request,
            "reasons.html",
            {
                **data,
                **form_of(asked_for, IN_FORM),
                "lately": LATELY_DAYS if wanted is not asked_for else None,
                "by": by,
                "bucket_asked": bucket,
                "buckets": tuple(BUCKETS),
                "dimensions": tuple(COLUMNS),
                "days": DAYS,
                "drill": Drill(wanted, by, services.settings.zone),
                "ways": ways,
                "live": True,
            },
        )

    return router


def lately(wanted: TransferFilter, zone: tzinfo) -> TransferFilter:
    """The filter; one that names no time is about the last days, today with them."""
    if wanted.since is not None or wanted.until is not None:
        return wanted
    today = datetime.now(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return replace(wanted, since=today - timedelta(days=LATELY_DAYS - 1))


class Drill:
    """The URLs of the transfers behind a figure."""

    def __init__(self, wanted: TransferFilter, by: str, zone: tzinfo) -> None:
        self._wanted = wanted
        self._by = by
        self._zone = zone

    def to(self, **changes: object) -> str:
        return address("/transfers", replace(self._wanted, **changes).as_query())

    def value(self, value: str, **changes: object) -> str:
        return address("/transfers", replace(self._wanted.narrowed(self._by, value), **changes).as_query())

    def column(self, value: str, column: charts.Column) -> str:
        """Those of one value in one bucket; the filter's own time narrows it further."""
        since, until = column.begins.replace(tzinfo=self._zone), column.ends.replace(tzinfo=self._zone)
        narrowed = replace(
            self._wanted.narrowed(self._by, value),
            since=max(since, self._wanted.since or since),
            until=min(until, self._wanted.until or until),
        )
        return address("/transfers", narrowed.as_query())


async def reasons_data(
    services: Services, wanted: TransferFilter, by: str = "reason", bucket: str | None = None
) -> dict[str, Any]:
    """All figures of the page, as drawn."""
    database = services.database
    chosen = cast("Bucket", bucket or await fitting(services, wanted))
    counts, points, talks, talk = await asyncio.gather(
        count_transfers(database, wanted, by=by, top=TOP),
        transfers_over_time(database, wanted, by=by, bucket=chosen, top=TOP),
        talk_before_transfer(database, wanted, by=by, top=TOP),
        talk_before_transfer(database, wanted, by=None),
    )
    rate, lengths, flows, hours, quality = await asyncio.gather(
        transfer_rate(database, wanted),
        chains(database, wanted),
        pairs(database, wanted, limit=PAIRS),
        hour_of_week(database, wanted),
        data_quality(database, wanted),
    )
    begins = charts.buckets_of(points, chosen)
    return {
        "bucket": chosen,
        "bucket_count": len(begins),
        "rate": rate[0],
        "quality": quality,
        "rows": charts.rows_over_time(counts, points, begins, chosen, width=560, height=32),
        "sankey": charts.sankey(flows, left=120, right=960),
        "pairs": flows,
        "pairs_shown": sum(pair.transfers for pair in flows),
        "week": charts.week(hours),
        "hours": hours,
        "talk": talk[0] if talk else None,
        "histogram": charts.histogram(talk[0], width=640, height=120) if talk else [],
        "talks": talks,
        "chains": lengths,
        "reasons": await reasons_known(database),
    }


async def fitting(services: Services, wanted: TransferFilter) -> Bucket:
    """The bucket that shows a course of time: days, hours where there are few, weeks or months if many."""
    days = await transfers_over_time(services.database, wanted, by="outcome", bucket="day", top=1)
    length = span(days)
    if length <= timedelta(days=3):
        return "hour"
    if length <= timedelta(days=90):
        return "day"
    return "week" if length <= timedelta(days=700) else "month"


def span(points: Sequence[Point]) -> timedelta:
    moments: list[datetime] = [point.begins for point in points]
    return max(moments) - min(moments) if moments else timedelta()
