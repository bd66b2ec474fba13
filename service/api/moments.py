"""Moments of the log in requests: as of which one, and not before which one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query

from service.errors import BadInput, NotFound
from service.log import EventLog
from service.projections import Engine

AsOf = Annotated[
    str | None,
    Query(
        description="A position of the log, or a time in ISO 8601: the state as it was then", examples=["42"]
    ),
]
MinPosition = Annotated[
    int | None,
    Query(ge=0, description="Wait until the views have reached this position: read your own writes"),
]
WAIT_FOR_VIEW_S = 5.0
LONGEST_POSITION = 18  # digits


async def caught_up(engine: Engine, min_position: int | None) -> None:
    """Wait until the views have folded `min_position`.

    Raises:
        NotFound: they have not within WAIT_FOR_VIEW_S.

    """
    if min_position is not None and not await engine.reached(min_position, timeout_s=WAIT_FOR_VIEW_S):
        raise NotFound(f"the views have not reached position {min_position} within {WAIT_FOR_VIEW_S} s")


async def resolve(log: EventLog, as_of: str | None) -> int | None:
    """The position that `as_of` means: a number is one, a time is the last position recorded by then.

    Raises:
        BadInput: it is neither, or it lies beyond the log.

    """
    if as_of is None:
        return None
    if as_of.isdecimal() and len(as_of) <= LONGEST_POSITION:
        position, end = int(as_of), await log.next_position() - 1
        if position > end:
            raise BadInput("as_of", f"is {position}, beyond the end of the log", f"Write 0 to {end}")
        return position
    try:
        moment = datetime.fromisoformat(as_of)
    except ValueError:
        raise BadInput(
            "as_of", f"is {as_of[:40]!r}", "Write a position, or a time like 2026-11-24T09:30:00Z"
        ) from None
    return await log.position_at(zoned(moment) or moment)


def zoned(moment: datetime | None) -> datetime | None:
    """A time without a zone is meant in UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
