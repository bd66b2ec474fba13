"""The one engine that keeps all projections up to the log's end.

Each projection is followed by itself, on a connection of its own: one that is slow, or whose table is broken,
holds up no other. They share the pages that are read of the log, each event unpacked and decoded once. Rows
and checkpoint change in one transaction, so each event is folded exactly once, whatever is killed when. One
engine works and others wait (advisory lock); and because a live generation's row is locked in that
transaction, even two at once would only take turns.

An event that a projection cannot digest is set aside, with the reason, and the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg

from service.errors import DatabaseError
from service.log import EventLog
from service.loops import Loop
from service.postgres import Database, database_errors
from service.projections import sql
from service.projections.folding import Folder
from service.projections.memory import search_for_cycles_seldom
from service.projections.pages import Pages
from service.projections.projection import Projection
from service.projections.reading import Page, Reader
from service.projections.refold import refold_redacted
from service.projections.tables import Connection, ProjectionTable, prepare

BATCH = 1_000  # events a transaction
BEAT_S = 5.0
LEADER_LOCK = 7_232_501_145  # of our own choosing
ASK_AGAIN_S = 0.02

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
        self.loop = Loop("projections", self._lead)
        self._database = database
        self._log = log
        self._reader = Reader(log, projections)
        self._followed: dict[str, int] = {}  # while this engine leads: how far each is known to have come
        self._moved = asyncio.Event()

    async def _lead(self, loop: Loop) -> None:
        """Hold the lock and let every projection be followed, until the connection is lost."""
        connection = await self._database.connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        search_for_cycles_seldom()
        pages = Pages(self._log.watch, self._reader, BATCH)
        followers = [
            Loop(f"projection {name}", partial(self._follow, projection, pages))
            for name, projection in self.projections.items()
        ]
        try:
            with database_errors():
                await prepare(connection)
                await connection.execute("SELECT pg_advisory_lock($1)", LEADER_LOCK, timeout=None)
                await enter(connection, list(self.projections.values()))
            for follower in followers:
                follower.start()
            loop.beat()
            await lost.wait()
            raise DatabaseError("the connection that holds the engine's lock is lost")
        finally:
            for follower in followers:
                await follower.stop()
            await pages.stop()
            self._followed.clear()
            connection.terminate()

    async def _follow(self, projection: Projection, pages: Pages, loop: Loop) -> None:
        """Keep one projection up to the log's end."""
        connection = await self._database.connect()
        try:
            with database_errors():
                await prepare(connection)
                follower = Follower(connection, self._log, projection)
                await follower.find_position()
                while True:
                    self._told(projection.name, follower.position)
                    page = await pages.after(follower.position, within_s=BEAT_S)
                    if page is None:
                        await connection.execute(sql.BEAT, projection.name)
                    else:
                        await follower.take(page)
                    loop.beat()
                    self.loop.beat()
        finally:
            self._followed.pop(projection.name, None)
            connection.terminate()

    def _told(self, name: str, position: int) -> None:
        self._followed[name] = position
        self._moved.set()
        self._moved = asyncio.Event()

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

    async def reached(self, position: int, *, timeout_s: float, names: Sequence[str] | None = None) -> bool:
        """Wait until every live projection (or those named) has folded `position`; False if it takes longer.

        What this engine follows itself it knows at once; what another one follows is asked of the database.
        """
        wanted = list(self.projections) if names is None else names
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            moved, followed = self._moved, self._followed
            if not all(name in followed for name in wanted):
                followed = await self.positions()
            if all(followed.get(name, -1) >= position for name in wanted):
                return True
            left = deadline - asyncio.get_running_loop().time()
            if left < 0:
                return False
            with suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), min(left, ASK_AGAIN_S))


class Follower:
    """Folds page after page into the live generation of one projection, on `connection`."""

    def __init__(self, connection: Connection, log: EventLog, projection: Projection) -> None:
        self.position = -1
        self._connection = connection
        self._log = log
        self._projection = projection
        self._folder: Folder | None = None

    async def find_position(self) -> None:
        """Go where the live generation stands."""
        rows = await self._connection.fetch(sql.LIVE, [self._projection.name])
        self._go(rows[0]["position"])

    def _go(self, position: int) -> None:
        """Go on from `position`, where others have brought the generation, or whence we must try again."""
        self.position, self._folder = position, None

    async def take(self, page: Page) -> None:
        """Fold `page`; what cannot be written is narrowed down to one event."""
        try:
            await self._fold(page)
        except REFUSALS as error:
            self._folder = None
            if page.upto - page.after > 1:
                for half in page.halves():
                    await self.take(half)
            else:
                await self._fold(page.refused(error))

    async def _fold(self, page: Page) -> None:
        """Fold `page` into the live generation, if that stands at its beginning, in one transaction."""
        connection, name = self._connection, self._projection.name
        async with connection.transaction():
            live = await connection.fetchrow(sql.LOCK_LIVE, [name])
            assert live is not None
            if live["position"] != page.after:
                self._go(live["position"])
                return
            folder = self._folder
            if folder is None or folder.generation != live["generation"]:
                folder = Folder(self._projection, live["generation"], self._log)
            await folder.advance(connection, page)
            await refold_redacted(connection, self._log, folder, page)
        self.position, self._folder = page.upto, folder


async def enter(connection: Connection, projections: Sequence[Projection]) -> None:
    """Give each projection that is new its first generation."""
    for projection in projections:
        async with connection.transaction():
            first = await connection.fetchval(sql.ENTER_FIRST, projection.name)
            if first is not None:
                table = ProjectionTable(projection, first)
                await table.create(connection)
                await table.attach(connection)
