"""The filter of transfers in a query string: the same for the audit's list and every question."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query

from service.analytics import TransferFilter
from service.api.moments import zoned
from service.errors import BadInput

LONGEST = 1_000


def text(description: str, example: str) -> Any:
    return Query(min_length=1, max_length=LONGEST, description=description, examples=[example])


def read_filter(
    since: Annotated[
        datetime | None,
        Query(description="Requested at or after this time", examples=["2026-11-24T00:00:00Z"]),
    ] = None,
    until: Annotated[
        datetime | None, Query(description="Requested before this time", examples=["2026-11-25T00:00:00Z"])
    ] = None,
    agent: Annotated[str | None, text("User name of the agent, or unknown", "15000")] = None,
    destination: Annotated[str | None, text("Number transferred to, or unknown", "15002")] = None,
    reason: Annotated[str | None, text("The reason, or unknown", "Escalation")] = None,
    outcome: Annotated[str | None, text("What became of it", "confirmed")] = None,
    operation: Annotated[str | None, text("single-step or two-step", "single-step")] = None,
    destination_type: Annotated[str | None, text("agent, external or unknown", "agent")] = None,
    data: Annotated[
        list[str] | None,
        Query(
            description="key=value of userData; may be given more than once", examples=[["Segment=Premium"]]
        ),
    ] = None,
    commanded: Annotated[
        bool | None, Query(description="true: commanded through calltrail; false: only observed")
    ] = None,
    in_doubt: Annotated[bool | None, Query(description="Whether nobody knows if it happened")] = None,
    carried_out: Annotated[bool | None, Query(description="Whether the call is known to have left")] = None,
    overlaps_gap: Annotated[bool | None, Query(description="Whether the record has a gap meanwhile")] = None,
    ping_pong: Annotated[bool | None, Query(description="Whether it went back where it came from")] = None,
    call_id: Annotated[str | None, text("Of this call", "01RCC3N118B1V0SL8O7GK2LAES00000G")] = None,
    chain_length: Annotated[int | None, Query(ge=0, le=10_000, description="Transfers of the call")] = None,
    weekday: Annotated[int | None, Query(ge=1, le=7, description="1 is Monday; the site's time")] = None,
    hour: Annotated[int | None, Query(ge=0, le=23, description="The site's time")] = None,
    min_talk_s: Annotated[float | None, Query(ge=0, le=1e9, description="Talk before it, seconds")] = None,
    max_talk_s: Annotated[float | None, Query(ge=0, le=1e9, description="Below so many seconds")] = None,
    before_position: Annotated[int | None, Query(description="Begun before this position")] = None,
) -> TransferFilter:
    """The filter that a request asks for.

    Raises:
        BadInput: a field is wrong.

    """
    return TransferFilter(
        since=zoned(since),
        until=zoned(until),
        agent=agent,
        destination=destination,
        reason=reason,
        outcome=outcome,
        operation=operation,
        destination_type=destination_type,
        user_data=tuple(map(read_pair, data or ())),
        commanded=commanded,
        in_doubt=in_doubt,
        carried_out=carried_out,
        overlaps_gap=overlaps_gap,
        ping_pong=ping_pong,
        call_id=call_id,
        chain_length=chain_length,
        weekday=weekday,
        hour=hour,
        min_talk_s=min_talk_s,
        max_talk_s=max_talk_s,
        before_position=before_position,
    )


def read_pair(pair: str) -> tuple[str, str]:
    """`key=value`; the value may hold further equals signs."""
    key, equals, value = pair.partition("=")
    if not (key and equals and value):
        raise BadInput("data", f"{pair[:40]!r} is not key=value", "Write e.g. data=Segment=Premium")
    return key, value


Filter = Annotated[TransferFilter, Depends(read_filter)]
