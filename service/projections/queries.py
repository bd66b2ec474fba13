"""What readers ask of the projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from service.errors import NotFound
from service.postgres import Database, database_errors
from service.projections import call_state, coverage, transfer_audit
from service.projections.intervals import nodes_for
from service.projections.memory import no_searching_for_cycles
from service.projections.projection import Projection
from service.projections.sql import live_generation


def columns_of(projection: type[Projection]) -> list[str]:
    hidden = {"generation", "node"}
    return [column.name for column in projection.table.columns if column.name not in hidden]  # type: ignore[attr-defined]


LEG_COLUMNS = columns_of(call_state.CallState)
AUDIT_COLUMNS = columns_of(transfer_audit.TransferAudit)

_SELECT_LEGS = (
    f"SELECT {', '.join(LEG_COLUMNS)} FROM call_state "  # noqa: S608 constants
    f"WHERE generation = {live_generation('call_state')}"
)
OBSERVED = """
SELECT t.transfer_id, o.call_id, o.conn_id, t.agent, NULL AS caller, 'observed' AS door, t.destination,
       NULL AS location, t.reason, t.user_data,
       CASE WHEN t.recalled THEN 'recalled' ELSE 'observed' END AS outcome, t.grade,
       NULL::integer AS status_code,
       CASE WHEN t.destination IS NULL THEN 'the destination is not in the record' END AS message,
       t.at AS requested_at, NULL::timestamptz AS dispatched_at, NULL::timestamptz AS answered_at,
       t.at AS settled_at, '[]'::jsonb AS steps, t.evidence, (t.evidence ->> 0)::bigint AS first_position,
       (t.evidence ->> -1)::bigint AS last_position, t.operation, t.recalled
FROM {} o CROSS JOIN LATERAL jsonb_to_recordset(o.observed) AS t (
    transfer_id uuid, agent text, destination text, operation text, grade text, reason text,
    user_data jsonb, recalled boolean, at timestamptz, evidence jsonb)
"""
"""The observed transfers that rows of `call_facts` hold, in the form of the audit's."""
AS_AUDITED = OBSERVED.format("(SELECT $1::text AS call_id, $2::text AS conn_id, $3::jsonb AS observed)")
TRANSFERS = f"""
SELECT * FROM (
    SELECT {", ".join(AUDIT_COLUMNS)}, NULL::text AS operation, false AS recalled FROM transfer_audit
    WHERE generation = {live_generation("transfer_audit")}
    UNION ALL
    {OBSERVED.format("call_facts")}
    WHERE o.generation = {live_generation("transfer_facts")} AND o.observed IS NOT NULL
) AS transfers WHERE true
"""  # noqa: S608 constants
"""Transfers commanded through us, and those only observed (door "observed"), in one form."""

_SELECT_COVERAGE = f"""
SELECT c.agent, c.spans, s.alive_at,
    CASE WHEN NOT s.attended THEN 'no process records the agent'
         WHEN s.status = 'retrying' THEN 'polls fail: ' || s.reason END AS unknown
FROM coverage AS c LEFT JOIN recorder_session_now AS s ON s.agent = c.agent AND s.session = c.session
WHERE c.generation = {live_generation("coverage")}
"""  # noqa: S608 constants
"""`unknown`: why nothing is known of an open session's last moments, where that is so."""

LIVE_NOW = f"{_SELECT_LEGS} AND to_position IS NULL AND {call_state.LIVE_LEG}"
LIVE_AT = f"""
{LIVE_NOW} AND from_position <= $1
UNION ALL {_SELECT_LEGS} AND node = ANY($2::bigint[]) AND to_position > $1 AND {call_state.LIVE_LEG}
UNION ALL SELECT legs.* FROM unnest($3::bigint[]) AS above (place) CROSS JOIN LATERAL (
    {_SELECT_LEGS} AND node = place AND from_position <= $1 AND {call_state.LIVE_LEG} OFFSET 0) AS legs
"""  # noqa: S608 constants
"""Legs that were not over at $1: those still so, and those in whose interval it lies (see `intervals`)."""
AT = "AND from_position <= $1 AND (to_position IS NULL OR to_position > $1)"


class Queries:
    """Reads the live generation of each projection."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def legs(
        self,
        *,
        as_of: int | None = None,
        call_id: str | None = None,
        agent: str | None = None,
        include_over: bool = False,
        newest: int | None = None,
    ) -> list[dict[str, Any]]:
        """Legs as they were at position `as_of` (None: now), of one call, of one agent, or all.

        Legs that are over are left out unless `include_over` or a call is named. The whole call resource
        that a leg rests on is the event at its `from_position`. `newest`: only so many, those of which
        something was told last.
        """
        statement, arguments = legs_query(as_of, call_id, agent, include_over=include_over)
        if newest is not None:
            statement = f"SELECT * FROM ({statement}) AS legs ORDER BY from_position DESC LIMIT {newest:d}"  # noqa: S608 a number
        return sorted(await self._rows(statement, *arguments), key=lambda row: row["from_position"])

    async def positions_of(self, call_id: str) -> list[int]:
        """The positions at which a leg of this call came to be in another state."""
        rows = await self._rows(f"{_SELECT_LEGS} AND call_id = $1 ORDER BY from_position", call_id)
        return [row["from_position"] for row in rows]

    async def transfers(
        self, *, call_id: str | None = None, outcome: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Transfers, newest first, each with the gaps in its agent's record that overlap it."""
        statement, arguments = TRANSFERS, list[Any]()
        for name, value in (("call_id", call_id), ("outcome", outcome)):
            if value is not None:
                arguments.append(value)
                statement += f" AND {name} = ${len(arguments)}"
        statement += f" ORDER BY first_position DESC LIMIT {limit:d}"
        return await self._with_gaps(await self._rows(statement, *arguments))

    async def transfer(self, transfer_id: UUID) -> dict[str, Any]:
        """One transfer's audit row, with the gaps in its agent's record that overlap it.

        Raises:
            NotFound: no transfer has this id.

        """
        rows = await self._rows(f"{TRANSFERS} AND transfer_id = $1", transfer_id)
        if not rows:
            raise NotFound(f"there is no transfer {transfer_id}")
        return (await self._with_gaps(rows))[0]

    async def _with_gaps(self, transfers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        agents = list({row["agent"] for row in transfers})
        spans = {row["agent"]: row["spans"] for row in await self._coverage("AND c.agent = ANY($1)", agents)}
        for row in transfers:
            row["gaps"] = coverage.overlapping(
                spans.get(row["agent"], []), row["requested_at"], row["settled_at"]
            )
        return transfers

    async def as_audited(self, observed: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The observed transfers of a row of `call_facts`, in the form of `transfer`, without gaps."""
        transfers = msgspec.json.encode(observed["observed"] or []).decode()
        return await self._rows(AS_AUDITED, observed["call_id"], observed["conn_id"], transfers)

    async def transfers_of(
        self, call_ids: Sequence[str], transfer_ids: Sequence[UUID]
    ) -> dict[UUID, dict[str, Any]]:
        """The audit rows of transfers on these calls, by id."""
        rows = await self._rows(
            f"{TRANSFERS} AND call_id = ANY($1::text[]) AND transfer_id = ANY($2::uuid[])",
            call_ids,
            transfer_ids,
        )
        return {row["transfer_id"]: row for row in rows}

    async def gaps_of(
        self, agent: str | None, since: datetime, until: datetime | None
    ) -> list[dict[str, Any]]:
        """The gaps in an agent's record that overlap a time (`until` None: still going on)."""
        spans = [] if agent is None else await self.coverage(agent)
        return coverage.overlapping(spans, since, until)

    async def coverage(self, agent: str) -> list[dict[str, Any]]:
        """The spans of an agent's record, oldest first: complete, doubtful or missing."""
        rows = await self._coverage("AND c.agent = $1", agent)
        spans: list[dict[str, Any]] = rows[0]["spans"] if rows else []
        return spans

    async def coverages(self) -> list[dict[str, Any]]:
        """Every recorded agent with the spans of the record, by user name."""
        return await self._coverage("ORDER BY c.agent")

    async def _coverage(self, which: str, *arguments: Any) -> list[dict[str, Any]]:
        rows = await self._rows(f"{_SELECT_COVERAGE} {which}", *arguments)
        for row in rows:
            why, alive_at = row.pop("unknown"), row.pop("alive_at")
            if why is not None:
                row["spans"] = coverage.as_known(row["spans"], alive_at, why)
        return rows

    async def _rows(self, statement: str, *arguments: Any) -> list[dict[str, Any]]:
        decode = msgspec.json.decode
        with no_searching_for_cycles(), database_errors():
            found = await self._database.pool.fetch(statement, *arguments)
            names = [name for name in JSON_COLUMNS if found and name in found[0]]
            rows = [dict(row) for row in found]
            for row in rows:
                for name in names:
                    row[name] = decode(row[name])
        return rows


HIGHEST = 1 << 40  # beyond the position of any event: each doubling costs one more probe
JSON_COLUMNS = ("participants", "user_data", "steps", "evidence", "spans")


def legs_query(
    as_of: int | None, call_id: str | None, agent: str | None, *, include_over: bool
) -> tuple[str, list[Any]]:
    """The statement and its arguments for `Queries.legs`."""
    arguments: list[Any]
    if call_id is None and not include_over:
        if as_of is None:
            statement, arguments = LIVE_NOW, []
        else:
            below, above = nodes_for(as_of, highest=HIGHEST)
            statement, arguments = LIVE_AT, [as_of, below, above]
        if agent is not None:
            arguments.append(agent)
            statement = f"SELECT * FROM ({statement}) AS legs WHERE agent = ${len(arguments)}"  # noqa: S608 constants
        return statement, arguments
    statement, arguments = f"{_SELECT_LEGS} AND to_position IS NULL", []
    if as_of is not None:
        statement, arguments = f"{_SELECT_LEGS} {AT}", [as_of]
    for name, value in (("call_id", call_id), ("agent", agent)):
        if value is not None:
            arguments.append(value)
            statement += f" AND {name} = ${len(arguments)}"
    return statement, arguments


def calls_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Legs gathered into calls: a call is its legs."""
    calls: dict[str, dict[str, Any]] = {}
    for row in rows:
        call = calls.setdefault(row["call_id"], {"call_id": row["call_id"], "conn_id": None, "legs": []})
        call["conn_id"] = call["conn_id"] or row["conn_id"]
        call["legs"].append(
            {name: value for name, value in row.items() if name not in {"call_id", "conn_id"}}
        )
    return list(calls.values())
