"""The one engine that runs all projections: live, and from the beginning.

Rows and checkpoint change in one transaction, so each event is folded exactly once, whatever is killed when.
One engine works and others wait (advisory lock); and because the live generation's row is locked in that
transaction, even two at once would only take turns.

A rebuild folds the whole log into the next generation, beside the live one, and swaps when it has caught up.
Readers ask for the live generation and never see one half built.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from service.errors import NotFound
from service.events import ProjectionRebuilt, encode
from service.log import EventLog, NewEvent, Producer
from service.loops import Loop
from service.postgres import Database, database_errors
from service.projections import sql
from service.projections.folding import fold_batch
from service.projections.projection import Projection, Recorded

logger = logging.getLogger(__name__)

BATCH = 1_000  # events a transaction
LEADER_LOCK = 7_232_501_145  # of our own choosing
ASK_AGAIN_S = 0.02


class Engine:
    """Runs `projections` on `log`."""

    def __init__(self, database: Database, log: EventLog, projections: Sequence[Projection]) -> None:
        self.projections = {projection.name: projection for projection in projections}
        self.loop = Loop("projections", self._run)
        self._database = database
        self._log = log

    async def _run(self, loop: Loop) -> None:
        leader = await self._database.connect()
        try:
            with database_errors():
                await leader.execute("SELECT pg_advisory_lock($1)", LEADER_LOCK, timeout=None)
            await self._enter()
            while True:
                positions = [await self._advance(projection) for projection in self.projections.values()]
                loop.beat()
                with database_errors():
                    await leader.execute("SELECT 1")  # notices that the lock is lost
                await self._log.watch.beyond(min(positions), timeout_s=5)
        finally:
            leader.terminate()

    async def _enter(self) -> None:
        with database_errors():
            async with self._database.engine.begin() as connection:
                for name in self.projections:
                    await connection.execute(sql.ENTER_FIRST, {"name": name})

    async def _advance(self, projection: Projection) -> int:
        """Fold the next batch into the live generation; returns the position reached."""
        with database_errors():
            async with self._database.engine.begin() as connection:
                live = (await connection.execute(sql.LOCK_LIVE, {"name": projection.name})).one()
                return await self._fold_page(connection, projection, live.generation, live.position)

    async def _fold_page(
        self, connection: AsyncConnection, projection: Projection, generation: int, after: int
    ) -> int:
        page = await self._log.read(after=after, limit=BATCH)
        if not page:
            return after
        batch = [recorded for stored in page if (recorded := Recorded.of(stored)) is not None]
        await fold_batch(connection, projection, generation, batch)
        reached = page[-1].position
        await connection.execute(
            sql.MOVE, {"name": projection.name, "generation": generation, "position": reached}
        )
        return reached

    async def rebuild(self, name: str, *, progress: Callable[[int], None] = lambda _: None) -> int:
        """Build the next generation of `name` from the whole log and make it live; returns its number.

        `progress` is told each position reached. Generations older than the one replaced are deleted.

        Raises:
            NotFound: there is no such projection.

        """
        if name not in self.projections:
            raise NotFound(f"there is no projection {name}; there are {', '.join(self.projections)}")
        projection = self.projections[name]
        await self._enter()
        with database_errors():
            async with self._database.engine.begin() as connection:
                generation: int = (await connection.execute(sql.ENTER_NEXT, {"name": name})).scalar_one()
        reached = -1
        while True:
            with database_errors():
                async with self._database.engine.begin() as connection:
                    before, reached = (
                        reached,
                        await self._fold_page(connection, projection, generation, reached),
                    )
            progress(reached)
            if reached == before and await self._swap(projection, generation, reached):
                break
        event = ProjectionRebuilt(name=name, generation=generation, upto=reached)
        await self._log.append(
            [NewEvent(Producer.new().key, f"projection-{name}", event.kind(), encode(event))]
        )
        return generation

    async def _swap(self, projection: Projection, generation: int, reached: int) -> bool:
        """Make `generation` live, unless the live one is ahead of it."""
        table, name = projection.table, projection.name
        with database_errors():
            async with self._database.engine.begin() as connection:
                live = (await connection.execute(sql.LOCK_LIVE, {"name": name})).one()
                if live.position > reached:
                    return False
                await connection.execute(sql.FORGET, {"name": name, "generation": generation})
                await connection.execute(
                    sa.delete(table).where(table.c.generation.not_in((generation, live.generation)))
                )
                await connection.execute(sql.SWAP_OUT, {"name": name})
                await connection.execute(sql.SWAP_IN, {"name": name, "generation": generation})
        return True

    async def positions(self) -> dict[str, int]:
        """How far each live projection has come."""
        with database_errors():
            async with self._database.engine.connect() as connection:
                rows = await connection.execute(
                    sa.select(sql.projection.c.name, sql.projection.c.position).where(sql.projection.c.live)
                )
                return {row.name: row.position for row in rows}

    async def reached(self, position: int, *, timeout_s: float) -> bool:
        """Wait until every live projection has folded `position`; False if it takes longer."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            positions = await self.positions()
            if positions and min(positions.values()) >= position and len(positions) >= len(self.projections):
                return True
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(ASK_AGAIN_S)
