"""Which transfers an export takes, read from one snapshot: the views may move on meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from service.analytics import TransferFilter
from service.analytics.statement import Arguments
from service.errors import BadInput
from service.postgres import Database, database_errors
from service.projections import Queries
from service.projections.coverage import COMPLETE, overlapping
from service.projections.queries import JSON_COLUMNS, TRANSFERS

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

PREFETCH = 500


@dataclass(frozen=True)
class Wanted:
    """What to export: a filter, and maybe only a sample of it, the same for the same seed."""

    transfers: TransferFilter = field(default_factory=TransferFilter)
    sample: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sample is not None and self.sample < 1:
            raise BadInput("sample", f"is {self.sample}", "Give a number of transfers, 1 or more")

    @property
    def text(self) -> str:
        """The filter in words."""
        said = [f"{name} {value}" for name, value in self.transfers.as_query()]
        if self.sample is not None:
            said.append(f"a sample of {self.sample} (seed {self.seed})")
        return ", ".join(said) or "all transfers"


class Selection:
    """The transfers wanted, as of one moment of the views."""

    def __init__(
        self, connection: Connection, wanted: Wanted, spans: Mapping[str, list[dict[str, Any]]]
    ) -> None:
        self._connection = connection
        self._spans = spans
        arguments = Arguments()
        statement = f"""
            SELECT audited.*, t.requested_at AS happened_at, t.recorded_at
            FROM ({TRANSFERS}) AS audited JOIN analytics.fact_transfer t USING (transfer_id)
            WHERE {wanted.transfers.condition(arguments)}
        """  # noqa: S608 names are ours, values are arguments
        self._arguments = tuple(arguments.values)
        if wanted.sample is not None:
            chosen = f"md5({wanted.seed:d} || transfer_id::text)"
            statement += f" ORDER BY {chosen}, transfer_id LIMIT {wanted.sample:d}"
        self._statement = f"SELECT * FROM ({statement}) AS wanted"  # noqa: S608 constants and numbers

    async def outcomes(self) -> dict[str, int]:
        """How many transfers there are by outcome, most first."""
        rows = await self._connection.fetch(
            f"SELECT outcome, count(*) FROM ({self._statement}) AS counted GROUP BY 1 ORDER BY 2 DESC, 1",  # noqa: S608 constants
            *self._arguments,
        )
        return {row["outcome"]: row["count"] for row in rows}

    async def population(self) -> int:
        """How many transfers there are in the record."""
        found: int = await self._connection.fetchval(f"SELECT count(*) FROM ({TRANSFERS}) AS everything")  # noqa: S608 constants
        return found

    def gaps(self, since: datetime | None, until: datetime | None) -> list[dict[str, Any]]:
        """The spans of every agent's record that are not complete and lie in a time."""
        return [
            {"agent": agent, **span}
            for agent, spans in sorted(self._spans.items())
            for span in (
                [one for one in spans if one["kind"] != COMPLETE]
                if since is None
                else overlapping(spans, since, until)
            )
        ]

    async def rows(self) -> AsyncIterator[dict[str, Any]]:
        """Each transfer with the gaps that overlap it, in the order of the log.

        `requested_at` is what filters go by: GWS's time where it tells. `recorded_at`, and gaps, are ours.
        """
        statement = f"{self._statement} ORDER BY first_position, transfer_id"
        async for record in self._connection.cursor(statement, *self._arguments, prefetch=PREFETCH):
            row = dict(record)
            for name in JSON_COLUMNS:
                if name in row:
                    row[name] = msgspec.json.decode(row[name])
            spans = self._spans.get(row["agent"], [])
            row["requested_at"] = row.pop("happened_at")
            row["gaps"] = overlapping(spans, row["recorded_at"], row["settled_at"])
            yield row


@asynccontextmanager
async def select(database: Database, wanted: Wanted) -> AsyncIterator[Selection]:
    """Open a snapshot of the views and select from it."""
    with database_errors():
        async with (
            database.pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            spans = {row["agent"]: row["spans"] for row in await Queries(database).coverages()}
            yield Selection(connection, wanted, spans)
