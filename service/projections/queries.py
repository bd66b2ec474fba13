"""What readers ask of the projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from service.errors import NotFound
from service.gws import dialect
from service.postgres import Database, database_errors
from service.projections import call_state, transfer_audit
from service.projections.sql import live_generation

legs = call_state.table
audit = transfer_audit.table

LEG_COLUMNS = [column for column in legs.columns if column.name != "generation"]
AUDIT_COLUMNS = [column for column in audit.columns if column.name != "generation"]


@dataclass(frozen=True, slots=True)
class TransferFilter:
    """Which transfers; None: any. Times are of the request; `since` is inclusive, `until` is not."""

    call_id: str | None = None
    agent: str | None = None
    destination: str | None = None
    reason: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before_position: int | None = None


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
    ) -> list[dict[str, Any]]:
        """Legs as they were at position `as_of` (None: now), of one call, of one agent, or all.

        Legs that are over are left out unless `include_over` or a call is named.
        """
        query = sa.select(*LEG_COLUMNS).where(legs.c.generation == live_generation("call_state"))
        if as_of is None:
            query = query.where(legs.c.to_position.is_(None))
        else:
            still_so = sa.or_(legs.c.to_position.is_(None), legs.c.to_position > as_of)
            query = query.where(legs.c.from_position <= as_of, still_so)
        if call_id is not None:
            query = query.where(legs.c.call_id == call_id)
        elif not include_over:
            query = query.where(sa.func.coalesce(legs.c.state, "").not_in(dialect.OVER))
        if agent is not None:
            query = query.where(legs.c.agent == agent)
        return await self._rows(query.order_by(legs.c.from_position))

    async def transfers(self, wanted: TransferFilter, *, limit: int = 100) -> list[dict[str, Any]]:
        """Transfers, newest first."""
        query = sa.select(*AUDIT_COLUMNS).where(audit.c.generation == live_generation("transfer_audit"))
        for name in ("call_id", "agent", "destination", "reason", "outcome"):
            value = getattr(wanted, name)
            if value is not None:
                query = query.where(audit.c[name] == value)
        if wanted.since is not None:
            query = query.where(audit.c.requested_at >= wanted.since)
        if wanted.until is not None:
            query = query.where(audit.c.requested_at < wanted.until)
        if wanted.before_position is not None:
            query = query.where(audit.c.first_position < wanted.before_position)
        return await self._rows(query.order_by(audit.c.first_position.desc()).limit(limit))

    async def transfer(self, transfer_id: UUID) -> dict[str, Any]:
        """One transfer's audit row.

        Raises:
            NotFound: no transfer has this id.

        """
        query = sa.select(*AUDIT_COLUMNS).where(
            audit.c.generation == live_generation("transfer_audit"), audit.c.transfer_id == transfer_id
        )
        rows = await self._rows(query)
        if not rows:
            raise NotFound(f"there is no transfer {transfer_id}")
        return rows[0]

    async def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with database_errors():
            async with self._database.engine.connect() as connection:
                return [dict(row) for row in (await connection.execute(query)).mappings()]


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
