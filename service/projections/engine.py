"""The one engine that keeps all projections up to the log's end.

Each page of the log is read once and folded into every projection that stands at its beginning. Rows and
checkpoints change in one transaction, so each event is folded exactly once, whatever is killed when. One
engine works and others wait (advisory lock); and because the live generations' rows are locked in that
transaction, even two at once would only take turns. The transaction runs on the connection that holds the
advisory lock, so whoever has lost the lock can no longer write.

An event that a projection cannot digest is set aside, with the reason, and the others go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import asyncpg

from service.log import EventLog
from service.loops import Loop
from service.postgres import Database, database_errors
from service.projections import sql
from service.projections.folding import Folder
from service.projections.memory import search_for_cycles_seldom
from service.projections.projection import Projection
from service.projections.reading import Page, Reader
from service.projections.refold import refold_redacted
from service.projections.tables import Connection, ProjectionTable, prepare

logger = logging.getLogger(__name__)

BATCH = 1_000  # events a transaction
BEAT_S = 5.0
BREATH_S = 0.05  # while less than a page waits, so that one transaction takes in what many writers bring
LEADER_LOCK = 7_232_501_145  # of our own choosing
ASK_AGAIN_S = 0.005

REFUSALS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
)
"""What says that rows cannot be written as they are, and would not be at a second try."""


class Engine:
    """Runs `projections` on `log`."""

    def __init__(self, database: Database, log: EventLog, projections: Sequence[Projection]) -> None:
        self.projections = {projection.name: projection for projection in projections}
        self.loop = Loop("projections", self._run)
        self._database = database
        self._log = log
        self._reader = Reader(log, projections)
        self._folders: dict[str, tuple[Folder, int]] = {}  # each with the position it has reached

    async def _run(self, loop: Loop) -> None:
        connection = await self._database.connect()
        self._folders.clear()
        search_for_cycles_seldom()
        try:
            with database_errors():
                await prepare(connection)
                await connection.execute("SELECT pg_advisory_lock($1)", LEADER_LOCK, timeout=None)
                await enter(connection, list(self.projections.values()))
                while True:
                    reached = await self._advance(connection)
                    loop.beat()
                    if self._log.watch.next_position - reached <= BATCH:
                        await asyncio.sleep(BREATH_S)
                    if not await self._log.watch.beyond(reached, timeout_s=BEAT_S):
                        await connection.execute(sql.BEAT, list(self.projections))
        finally:
            connection.terminate()

    async def _advance(self, connection: Connection) -> int:
        """Let each projection fold its next page; returns the lowest position reached.

        Projections at one position share a page. One that is behind never reads beyond the next, so that it
        joins it there.
        """
        live = await connection.fetch(sql.LIVE, list(self.projections))
        positions = sorted({row["position"] for row in live})
        reached = []
        for place, position in enumerate(positions):
            names = [row["name"] for row in live if row["position"] == position]
            page = await self._reader.page(position, min([position + BATCH, *positions[place + 1 :]]))
            if page.upto > position:
                await self._take(connection, names, page)
            reached.append(page.upto)
        return min(reached, default=-1)

    async def _take(self, connection: Connection, names: Sequence[str], page: Page) -> None:
        """Fold `page`; what cannot be written is narrowed down to one projection and one event."""
        try:
            await self._fold_page(connection, names, page)
        except REFUSALS as error:
            for name in names:
                self._folders.pop(name, None)
            if len(names) > 1:
                for name in names:
                    await self._take(connection, [name], page)
            elif page.upto - page.after > 1:
                for half in page.halves():
                    await self._take(connection, names, half)
            else:
                await self._fold_page(connection, names, page.refused(error))
        except BaseException:
            self._folders.clear()
            raise

    async def _fold_page(self, connection: Connection, names: Sequence[str], page: Page) -> None:
        """Fold `page` into those of `names` that stand at its beginning, in one transaction."""
        async with connection.transaction():
            for row in await connection.fetch(sql.LOCK_LIVE, names):
                name, generation = row["name"], row["generation"]
                if row["position"] != page.after:
                    continue  # another generation is live now
                folder = self._folder(name, generation, page.after)
                await folder.advance(connection, page)
                await refold_redacted(connection, self._log, folder, page)
                self._folders[name] = (folder, page.upto)

    def _folder(self, name: str, generation: int, position: int) -> Folder:
        """The folder of a generation; one that knows what it did last, if that is still so."""
        known, reached = self._folders.get(name, (None, -1))
        if known is not None and known.generation == generation and reached == position:
            return known
        return Folder(self.projections[name], generation, self._log)

    # What others ask

    async def positions(self) -> dict[str, int]:
        """How far each live projection has come."""
        with database_errors():
            rows = await self._database.pool.fetch(sql.LIVE, list(self.projections))
        return {row["name"]: row["position"] for row in rows}

    async def status(self) -> list[dict[str, Any]]:
        """Each live projection: generation, position, lag in events and seconds, heartbeat, events set aside.

        Each of `set_aside_events` (at most 100 in all are shown) has its position and the reason.
        """
        with database_errors():
            rows = [dict(row) for row in await self._database.pool.fetch(sql.STATUS)]
            aside = await self._database.pool.fetch(sql.SET_ASIDE_EVENTS, 100)
        for row in rows:
            row["set_aside_events"] = [
                {"position": one["position"], "reason": one["reason"], "at": one["at"]}
                for one in aside
                if one["name"] == row["name"]
            ]
        return rows

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


async def enter(connection: Connection, projections: Sequence[Projection]) -> None:
    """Give each projection that is new its first generation."""
    for projection in projections:
        async with connection.transaction():
            first = await connection.fetchval(sql.ENTER_FIRST, projection.name)
            if first is not None:
                table = ProjectionTable(projection, first)
                await table.create(connection)
                await table.attach(connection)
