"""Which transfers a question is about.

Every question takes the same filter, and so does the audit's list, so that any figure leads to the transfers
behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from service.analytics.statement import Arguments
from service.errors import BadInput
from service.projections.projection import storable

UNKNOWN = "unknown"
"""How a value that is not in the record is called: a reason, an agent, a destination, a key of userData."""
LONGEST_TEXT = 1_000
YEARS = range(1970, 3000)
HIGHEST_POSITION = 1 << 53
DATA = "data."
"""Before the key of userData that is to be a dimension: ``data.Segment``."""

COLUMNS = {
    "reason": "t.reason",
    "agent": "t.agent_id",
    "destination": "t.destination",
    "outcome": "t.outcome",
    "operation": "t.operation",
    "destination_type": "t.destination_type",
}
"""Dimensions by name, beside the keys of userData."""

GAP = """EXISTS (SELECT FROM analytics.gap g WHERE g.agent_id = t.agent_id
        AND g.begins_at <= coalesce(t.settled_at, 'infinity') AND g.ends_at >= t.recorded_at)"""


class TransferFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which transfers; None: any. `since` is inclusive, `until` is not; both are times of the request.

    `agent`, `destination` and a value of `user_data` may be ``unknown``: what is not in the record.
    """

    since: datetime | None = None
    until: datetime | None = None
    agent: str | None = None
    destination: str | None = None
    reason: str | None = None
    """Normalised; transfers without one have the reason ``unknown``."""
    outcome: str | None = None
    operation: str | None = None
    destination_type: str | None = None
    user_data: tuple[tuple[str, str], ...] = ()
    """Keys and the values that they have."""
    commanded: bool | None = None
    """True: commanded through calltrail; False: only observed."""
    in_doubt: bool | None = None
    carried_out: bool | None = None
    """Whether the call is known to have left the agent."""
    overlaps_gap: bool | None = None
    ping_pong: bool | None = None
    call_id: str | None = None
    chain_length: int | None = None
    weekday: int | None = None
    """1 is Monday, 7 Sunday, in the site's time zone; so is `hour`, 0 to 23."""
    hour: int | None = None
    min_talk_s: float | None = None
    """Talk before the transfer, in seconds, from `min_talk_s` on and below `max_talk_s`."""
    max_talk_s: float | None = None
    before_position: int | None = None
    """Only transfers whose first event stands before this position."""
    as_of: int | None = None
    """Only transfers that were known at this position of the log."""

    def __post_init__(self) -> None:
        for name, value in self.given():
            check(name, value)
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise BadInput("since", f"{self.since.isoformat()} is not before until", "Swap the two")

    def given(self) -> Iterator[tuple[str, Any]]:
        """The restrictions there are, by name; each pair of `user_data` by itself."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name == "user_data":
                yield from ((name, pair) for pair in value)
            elif value is not None:
                yield name, value

    def as_query(self) -> list[tuple[str, str]]:
        """The filter as parameters of a URL; `service.api.filters` reads them back."""
        return [
            ("data", "=".join(value)) if name == "user_data" else (name, shown(value))
            for name, value in self.given()
        ]

    def narrowed(self, by: str, value: str) -> TransferFilter:
        """The same, and of dimension `by` only `value`: the transfers behind one figure."""
        if by.startswith(DATA):
            return msgspec.structs.replace(self, user_data=(*self.user_data, (by.removeprefix(DATA), value)))
        if by not in COLUMNS:
            raise no_dimension(by)
        return msgspec.structs.replace(self, **{by: value})

    def condition(self, arguments: Arguments, *, but: frozenset[str] = frozenset()) -> str:
        """SQL over `analytics.fact_transfer t`; the restrictions named in `but` are left out."""
        parts = [condition(name, value, arguments) for name, value in self.given() if name not in but]
        return " AND ".join(parts) or "true"


COMPARISONS = {name: f"{column} = {{}}" for name, column in COLUMNS.items()} | {
    "since": "t.requested_at >= {}",
    "until": "t.requested_at < {}",
    "commanded": "t.is_commanded = {}",
    "carried_out": "t.is_carried_out = {}",
    "before_position": "t.position_first < {}",
    "ping_pong": "t.is_ping_pong = {}",
    "call_id": "t.call_id = {}",
    "chain_length": "t.chain_length = {}",
    "weekday": "t.weekday = {}",
    "hour": "t.requested_hour = {}",
    "min_talk_s": "t.talk_seconds_before >= {}",
    "max_talk_s": "t.talk_seconds_before < {}",
    "as_of": "t.position_known <= {}",
}


def condition(name: str, value: Any, arguments: Arguments) -> str:
    """One restriction as SQL."""
    match name, value:
        case ("agent" | "destination", "unknown"):
            return f"{COLUMNS[name]} IS NULL"
        case ("user_data", (key, "unknown")):
            return f"NOT t.user_data ? {arguments.add(key)}"
        case ("user_data", (key, text)):
            return holds(key, text, arguments)
        case ("in_doubt", _):
            return f"t.outcome {'=' if value else '<>'} 'in_doubt'"
        case ("overlaps_gap", _):
            return GAP if value else f"NOT {GAP}"
        case _:
            return COMPARISONS[name].format(arguments.add(value))


def holds(key: str, text: str, arguments: Arguments) -> str:
    """SQL for userData that has `key` with the value `text`, be it a string, a number, true or false."""
    forms = [msgspec.json.encode({key: text}).decode()]
    try:
        number = msgspec.json.decode(text, type=int | float | bool)
    except msgspec.MsgspecError:
        pass
    else:
        forms.append(msgspec.json.encode({key: number}).decode())
    parts = [f"t.user_data @> {arguments.add(form)}::jsonb" for form in forms]
    return f"({' OR '.join(parts)})"


def dimension(by: str, arguments: Arguments) -> str:
    """SQL for the value of dimension `by`, ``unknown`` where there is none.

    Raises:
        BadInput: there is no such dimension.

    """
    if by.startswith(DATA) and len(by) > len(DATA):
        check("by", by)
        return f"coalesce(t.user_data ->> {arguments.add(by.removeprefix(DATA))}, '{UNKNOWN}')"
    if by not in COLUMNS:
        raise no_dimension(by)
    return f"coalesce({COLUMNS[by]}, '{UNKNOWN}')"


def no_dimension(by: str) -> BadInput:
    return BadInput(
        "by", f"{by[:40]!r} is no dimension", f"Write one of {', '.join(COLUMNS)}, or {DATA} and a key"
    )


def check(name: str, value: Any) -> None:
    """Refuse a value that no transfer can have, or that Postgres does not take."""
    match value:
        case datetime():
            if value.tzinfo is None:
                raise BadInput(name, "has no time zone", "Write a time like 2026-11-24T09:30:00Z")
            if value.year not in YEARS:
                raise BadInput(name, f"is in the year {value.year}", f"Write {YEARS[0]} to {YEARS[-1]}")
        case str():
            if not 0 < len(value) <= LONGEST_TEXT:
                raise BadInput(name, f"has {len(value)} characters", f"Write 1 to {LONGEST_TEXT}, or nothing")
            if storable(value) != value:
                raise BadInput(name, "holds NUL or half a character", "Leave it out")
        case tuple():
            for part in value:
                check("data", part)
        case int() if not isinstance(value, bool) and abs(value) > HIGHEST_POSITION:
            raise BadInput(name, f"is {value}", "Write a smaller number")


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)
