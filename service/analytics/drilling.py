"""From a figure to the transfers behind it."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any

import msgspec

from service.analytics.filters import TransferFilter
from service.analytics.questions import Bin, ChainLength, Count, HourOfWeek, Pair, Point, TalkTime
from service.analytics.statements import Bucket


def behind(
    figure: object,
    wanted: TransferFilter,
    *,
    by: str | None = None,
    bucket: Bucket | None = None,
    zone: tzinfo | None = None,
) -> TransferFilter | None:
    """The filter of the transfers that `figure` counts; None if one filter cannot say it.

    `wanted`, `by`, `bucket` and the site's time `zone` are those that the question was asked with.
    """
    match figure:
        case Count(value=str(value)) if by is not None:
            return wanted.narrowed(by, value)
        case Point(begins=begins, value=str(value)) if by is not None and bucket is not None:
            return within(wanted.narrowed(by, value), begins.replace(tzinfo=zone), bucket)
        case TalkTime(value=value):
            known = wanted if value is None or by is None else wanted.narrowed(by, value)
            return replaced(known, min_talk_s=0.0)
        case Bin(from_s=begin, to_s=end):
            return replaced(wanted, min_talk_s=begin, max_talk_s=end)
        case ChainLength(length=length):
            return replaced(wanted, chain_length=length, carried_out=True)
        case Pair(agent=agent, destination=destination):
            return replaced(wanted, agent=agent, destination=destination)
        case HourOfWeek(weekday=weekday, hour=hour):
            return replaced(wanted, weekday=weekday, hour=hour)
        case _:
            return None


def replaced(wanted: TransferFilter, **changes: Any) -> TransferFilter:
    return msgspec.structs.replace(wanted, **changes)


def within(wanted: TransferFilter, begins: datetime, bucket: Bucket) -> TransferFilter:
    """Only what was requested in the bucket that begins at `begins`."""
    ends = {
        "hour": begins + timedelta(hours=1),
        "day": begins + timedelta(days=1),
        "week": begins + timedelta(weeks=1),
        "month": (begins + timedelta(days=31)).replace(day=1),
    }[bucket]
    return replaced(
        wanted,
        since=begins if wanted.since is None else max(begins, wanted.since),
        until=ends if wanted.until is None else min(ends, wanted.until),
    )
