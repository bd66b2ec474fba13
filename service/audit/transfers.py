"""Transfers for an auditor: a list to page through while the log grows, and one transfer's trail."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

import msgspec

from service.analytics.filters import HIGHEST_POSITION, TransferFilter
from service.analytics.statement import Arguments, Statement
from service.audit.known import merged, spans_known, transfer_known
from service.errors import BadInput, NotFound
from service.events import transfer_stream
from service.log import EventLog, StoredEvent
from service.postgres import Database
from service.projections import Queries
from service.projections.coverage import overlapping

Sort = Literal["time", "-time", "agent", "-agent", "destination", "-destination", "outcome", "-outcome"]
"""By what a list is sorted; with a minus the last come first."""

SORTS: tuple[Sort, ...] = get_args(Sort)
KEYS = {
    "time": "t.requested_at",
    "agent": "coalesce(t.agent_id, '')",
    "destination": "coalesce(t.destination, '')",
    "outcome": "t.outcome",
}
MOST = 1_000

COLUMNS = "t.*, t.agent_id AS agent, t.position_first AS first_position, t.position_last AS last_position"
SELECT = """
SELECT {columns}, {key} AS sort_key
FROM analytics.fact_transfer t WHERE {where}
ORDER BY {key} {order}, t.position_known {order}, t.transfer_id {order} LIMIT {limit:d}
"""


class Page(msgspec.Struct, frozen=True):
    """Some of the transfers that fit a filter.

    `total` counts all that were known at `as_of`, the log's position when the first page was asked for; later
    pages keep to it, so that what comes meanwhile moves nothing. `next` is the cursor of the page after this
    one, None at the end.
    """

    transfers: list[dict[str, Any]]
    total: int
    as_of: int
    next: str | None


class Evidence(msgspec.Struct, frozen=True):
    """An event that a trail rests on, and where its bytes and its proof are to be had."""

    position: int
    kind: str
    recorded_at: datetime
    role: str
    """`step`: of the transfer's own stream; `evidence`: what GWS told."""
    event: str
    proof: str


class Trail(msgspec.Struct, frozen=True):
    """Everything that is known of one transfer. `gaps` overlap it; none means: no known gaps.

    `as_of` is the position at which that was known; None: now.
    """

    transfer: dict[str, Any]
    gaps: list[dict[str, Any]]
    events: tuple[Evidence, ...]
    as_of: int | None = None

    def document(self) -> dict[str, Any]:
        """The trail as one object."""
        return {"as_of": self.as_of, **self.transfer, "gaps": self.gaps, "events": self.events}


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ended: the sort, the position it keeps to, and the last transfer's place in the order."""

    sort: Sort
    as_of: int
    key: str
    position: int
    transfer_id: UUID

    def encode(self) -> str:
        return urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Read a cursor back.

        Raises:
            BadInput: it is not one of ours.

        """
        try:
            cursor = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=cls)
            if cursor.sort.endswith("time"):
                datetime.fromisoformat(cursor.key)
        except (ValueError, msgspec.MsgspecError):
            raise BadInput("cursor", "was not made here", "Take it from the page before") from None
        if not (0 <= cursor.as_of <= HIGHEST_POSITION and abs(cursor.position) <= HIGHEST_POSITION):
            raise BadInput("cursor", "names no position", "Take it from the page before")
        return cursor


def list_statement(
    wanted: TransferFilter, *, sort: Sort = "-time", limit: int = 100, cursor: Cursor | None = None
) -> Statement:
    """The statement behind a page.

    Raises:
        BadInput: there is no such sort, or the page would be too long.

    """
    if sort not in SORTS:
        raise BadInput("sort", f"is {sort[:40]!r}", f"Write one of {', '.join(SORTS)}")
    if not 1 <= limit <= MOST:
        raise BadInput("limit", f"is {limit}", f"Write 1 to {MOST}")
    arguments = Arguments()
    where = wanted.condition(arguments)
    key, order = KEYS[sort.removeprefix("-")], "DESC" if sort.startswith("-") else "ASC"
    if cursor is not None:
        last = datetime.fromisoformat(cursor.key) if sort.endswith("time") else cursor.key
        place = ", ".join(arguments.add(value) for value in (last, cursor.position, cursor.transfer_id))
        where += f" AND ({key}, t.position_known, t.transfer_id) {'<' if order == 'DESC' else '>'} ({place})"
    return Statement(
        SELECT.format(columns=COLUMNS, key=key, order=order, where=where, limit=limit),
        tuple(arguments.values),
    )


def count_statement(wanted: TransferFilter) -> Statement:
    arguments = Arguments()
    where = wanted.condition(arguments)
    return Statement(
        f"SELECT count(*) FROM analytics.fact_transfer t WHERE {where}",  # noqa: S608 names are ours
        tuple(arguments.values),
    )


async def list_transfers(
    database: Database,
    queries: Queries,
    wanted: TransferFilter,
    *,
    sort: Sort = "-time",
    limit: int = 100,
    cursor: str | None = None,
) -> Page:
    """A page of the transfers that fit `wanted`, with their steps and evidence.

    Raises:
        BadInput: the cursor is not one of ours, or was made for another sort.

    """
    place = None if cursor is None else Cursor.decode(cursor)
    if place is not None and place.sort != sort:
        raise BadInput("cursor", f"was made for sort={place.sort}", "Keep the sort while you page")
    as_of = await settled_at(database, wanted, place)
    known = msgspec.structs.replace(wanted, as_of=as_of)
    statement = list_statement(known, sort=sort, limit=limit, cursor=place)
    rows = [dict(row) for row in await statement.rows(database)]
    total: int = (await count_statement(known).rows(database))[0][0]
    following = None
    if len(rows) == limit:
        last = rows[-1]
        key = last["sort_key"]
        text = key.isoformat() if isinstance(key, datetime) else key
        following = Cursor(sort, as_of, text, last["position_known"], last["transfer_id"]).encode()
    return Page(await with_audit(queries, rows), total, as_of, following)


async def settled_at(database: Database, wanted: TransferFilter, cursor: Cursor | None) -> int:
    """The position that all pages of a list keep to."""
    if cursor is not None:
        return cursor.as_of
    if wanted.as_of is not None:
        return wanted.as_of
    statement = Statement("SELECT position FROM analytics.freshness")
    position: int = (await statement.rows(database))[0]["position"]
    return position


async def with_audit(queries: Queries, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Facts, and what the audit has beside them: caller, door, steps, evidence."""
    audited = await queries.transfers_of(
        sorted({row["call_id"] for row in rows}), [row["transfer_id"] for row in rows]
    )
    return [merged(fact_of(row), audited.get(row["transfer_id"], {})) for row in rows]


def fact_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `COLUMNS` as readers see it."""
    fact = {name: value for name, value in row.items() if name != "sort_key"}
    return {**fact, "user_data": msgspec.json.decode(row["user_data"])}


async def transfer_trail(
    database: Database, queries: Queries, log: EventLog, transfer_id: UUID, as_of: int | None = None
) -> Trail:
    """One transfer's full trail: the row, the gaps that overlap it, every event that it rests on.

    With `as_of` as it was known at that position, from the log alone.

    Raises:
        NotFound: no transfer has this id, or none had it then.

    """
    statement = Statement(
        f"SELECT {COLUMNS} FROM analytics.fact_transfer t WHERE t.transfer_id = $1",  # noqa: S608 ours
        (transfer_id,),
    )
    rows = [dict(row) for row in await statement.rows(database)]
    if not rows:
        raise NotFound(f"there is no transfer {transfer_id}")
    call_id = rows[0]["call_id"]
    if as_of is None:
        [row] = await with_audit(queries, rows)
        gaps = await queries.gaps_of(row["agent"], row["recorded_at"], row["settled_at"])
    else:
        row = await transfer_known(log, queries, call_id, transfer_id, as_of)
        spans = {} if row["agent"] is None else await spans_known(log, as_of, row["agent"])
        gaps = overlapping(spans.get(row["agent"], []), row["recorded_at"], row["settled_at"])
        row["has_gap"] = bool(gaps)
    steps = [step["position"] for step in row.get("steps", ())]
    evidence = [position for position in row.get("evidence", ()) if position not in steps]
    told = await log.at(sorted({*steps, *evidence}))
    own = transfer_stream(call_id)
    return Trail(
        transfer=row,
        gaps=gaps,
        events=tuple(evidence_of(event, own) for event in told),
        as_of=as_of,
    )


def evidence_of(event: StoredEvent, own_stream: str) -> Evidence:
    return Evidence(
        position=event.position,
        kind=event.kind,
        recorded_at=event.recorded_at,
        role="step" if event.stream == own_stream else "evidence",
        event=f"/v1/events/{event.position}",
        proof=f"/v1/proofs/{event.position}",
    )
