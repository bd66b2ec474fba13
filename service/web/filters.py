"""The filter of the Transfers and Reasons pages, read from the query string."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any

from fastapi import Request

from service.analytics import TransferFilter
from service.errors import BadInput

TEXTS = ("agent", "destination", "reason", "outcome", "operation", "destination_type", "call_id")
NUMBERS = ("chain_length", "weekday", "hour", "as_of")
LENGTHS = ("min_talk_s", "max_talk_s")
TIMES = ("since", "until")
FLAGS = ("commanded", "in_doubt", "overlaps_gap", "ping_pong")
NAMES = (*TEXTS, *NUMBERS, *LENGTHS, *TIMES, *FLAGS)


def read_filter(request: Request, zone: tzinfo) -> TransferFilter:
    """The filter that a page's URL states; a time without a zone is local time of the site.

    Raises:
        BadInput: names the parameter that cannot be what it says.

    """

    def moment(text: str) -> datetime:
        at = datetime.fromisoformat(text)
        return at if at.tzinfo is not None else at.replace(tzinfo=zone)

    given = request.query_params
    values: dict[str, Any] = {name: given[name] for name in TEXTS if given.get(name)}
    readers: tuple[tuple[tuple[str, ...], Callable[[str], Any], str], ...] = (
        (NUMBERS, int, "Write a whole number"),
        (LENGTHS, float, "Write seconds"),
        (TIMES, moment, "Write a date, or a time like 2026-11-24T09:30:00Z"),
        (FLAGS, {"true": True, "false": False}.__getitem__, "Write true or false"),
    )
    for names, read, remedy in readers:
        values |= {name: take(name, given[name], read, remedy) for name in names if given.get(name)}
    return TransferFilter(**values, user_data=tuple(map(pair, given.getlist("data"))))


def take(name: str, text: str, read: Callable[[str], Any], remedy: str) -> Any:
    try:
        return read(text)
    except (ValueError, KeyError, OverflowError):
        raise BadInput(name, f"is {text[:40]!r}", remedy) from None


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise BadInput("data", f"is {text[:40]!r}", "Write key=value, or key=unknown")
    return name, value


def form_values(wanted: TransferFilter) -> dict[str, str | None]:
    """What the fields of a form show: None for each that restricts nothing."""
    return {**dict.fromkeys((*NAMES, "data")), **dict(wanted.as_query())}
