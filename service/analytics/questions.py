"""What analysts ask about transfers, each question a function from a filter to typed figures.

They read the views of the schema `analytics` (`docs/analytics.md`), never the log. The statement behind each
is in `service.analytics.statements`, to be shown beside the figures.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from service.analytics import statements
from service.analytics.filters import TransferFilter
from service.analytics.statements import EDGES_S, Bucket
from service.postgres import Database


class Count(msgspec.Struct, frozen=True):
    """Transfers with one value of a dimension; None: all values that are not told by themselves."""

    value: str | None
    transfers: int
    carried_out: int
    """Those of which it is known that the call left the agent."""


class Point(msgspec.Struct, frozen=True):
    """Transfers in one bucket of time, which begins at `begins`, local time of the site."""

    begins: datetime
    value: str | None
    transfers: int
    carried_out: int


class Rate(msgspec.Struct, frozen=True):
    """How many of the calls that agents handled were transferred; `begins` None: over the whole time.

    `transferred_call_rate` counts calls, `transfers_per_call` transfers; both None where there is no call.
    """

    begins: datetime | None
    calls: int
    transferred_calls: int
    transfers: int
    transferred_call_rate: float | None
    transfers_per_call: float | None


class Bin(msgspec.Struct, frozen=True):
    """Transfers after a talk of `from_s` to below `to_s` seconds; None: without end."""

    from_s: float
    to_s: float | None
    transfers: int


class TalkTime(msgspec.Struct, frozen=True):
    """How long agents talked before they transferred, in seconds."""

    value: str | None
    transfers: int
    median_s: float | None
    p90_s: float | None
    bins: tuple[Bin, ...]


class ChainLength(msgspec.Struct, frozen=True):
    """Calls that were transferred `length` times. Ping-pong: to a number that had the call before."""

    length: int
    calls: int
    transfers: int
    ping_pong_calls: int
    ping_pong_transfers: int


class Pair(msgspec.Struct, frozen=True):
    """Transfers from one agent to one destination."""

    agent: str
    destination: str
    transfers: int
    carried_out: int


class HourOfWeek(msgspec.Struct, frozen=True):
    """Transfers in one hour of the week, local time of the site; weekday 1 is Monday."""

    weekday: int
    hour: int
    transfers: int


class DataQuality(msgspec.Struct, frozen=True):
    """How far the figures can be trusted."""

    transfers: int
    with_reason: int
    unmapped_reason: int
    """With a reason for which the mapping has no entry."""
    with_gap: int
    in_doubt: int
    without_destination: int


class Freshness(msgspec.Struct, frozen=True):
    """How far behind the log the figures are."""

    position: int
    head: int
    lag_events: int
    lag_seconds: float


async def count_transfers(
    database: Database, wanted: TransferFilter, *, by: str = "reason", top: int = 50
) -> tuple[Count, ...]:
    """Transfers by a dimension, most first; values beyond the `top` are counted together, last."""
    rows = await statements.count_transfers(wanted, by=by, top=top).rows(database)
    return tuple(Count(*row) for row in rows)


async def transfers_over_time(
    database: Database, wanted: TransferFilter, *, by: str = "reason", bucket: Bucket = "day", top: int = 12
) -> tuple[Point, ...]:
    """Transfers by bucket of time and dimension; buckets without any are left out.

    Raises:
        BadInput: the time is too long for buckets of this size, or there is no such dimension.

    """
    rows = await statements.transfers_over_time(wanted, by=by, bucket=bucket, top=top).rows(database)
    return tuple(Point(*row) for row in rows)


async def transfer_rate(
    database: Database, wanted: TransferFilter, *, bucket: Bucket | None = None
) -> tuple[Rate, ...]:
    """The share of handled calls that were transferred: over the whole time, or by bucket.

    Calls are those that began in the filter's time, of the filter's agent if it names one; the rest of the
    filter says which of their transfers count. Only transfers that were carried out do.
    """
    rows = await statements.transfer_rate(wanted, bucket=bucket).rows(database)
    return tuple(
        Rate(begins, calls, transferred, transfers, *(part / calls if calls else None for part in counted))
        for begins, calls, transferred, transfers in rows
        for counted in [(transferred, transfers)]
    )


async def talk_before_transfer(
    database: Database, wanted: TransferFilter, *, by: str | None = None, top: int = 12
) -> tuple[TalkTime, ...]:
    """How long agents talked before the transfer: median, 90th percentile and histogram, by dimension."""
    rows = await statements.talk_before_transfer(wanted, by=by, top=top).rows(database)
    edges = [*EDGES_S, None]
    return tuple(
        TalkTime(
            value,
            transfers,
            median,
            p90,
            tuple(Bin(EDGES_S[place], edges[place + 1], count) for place, count in enumerate(counts)),
        )
        for value, transfers, median, p90, counts in rows
    )


async def chains(database: Database, wanted: TransferFilter) -> tuple[ChainLength, ...]:
    """How often the same call is transferred on, and back."""
    rows = await statements.chains(wanted).rows(database)
    return tuple(ChainLength(*row) for row in rows)


async def pairs(database: Database, wanted: TransferFilter, *, limit: int = 50) -> tuple[Pair, ...]:
    """Who transfers to whom, most first."""
    rows = await statements.pairs(wanted, limit=limit).rows(database)
    return tuple(Pair(*row) for row in rows)


async def hour_of_week(database: Database, wanted: TransferFilter) -> tuple[HourOfWeek, ...]:
    """When transfers happen; hours without any are left out."""
    rows = await statements.hour_of_week(wanted).rows(database)
    return tuple(HourOfWeek(*row) for row in rows)


async def data_quality(database: Database, wanted: TransferFilter) -> DataQuality:
    """How many of the transfers have what the figures rest on."""
    rows = await statements.data_quality(wanted).rows(database)
    return DataQuality(*rows[0])


async def freshness(database: Database) -> Freshness:
    """How far the figures have come; a lag of 0 means that they are up to the log's end."""
    rows = await statements.freshness().rows(database)
    return Freshness(*rows[0])


async def reasons_known(database: Database, *, limit: int = 200) -> tuple[str, ...]:
    """Reasons that have occurred, for a list to choose from."""
    rows = await statements.reasons_known(limit=limit).rows(database)
    return tuple(row["reason"] for row in rows)
