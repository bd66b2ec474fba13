"""The work of one share of a rebuild: to fold its part of the log into the generations that are being built.

Each stretch is one transaction with the share's checkpoint, so it can be killed at any moment and started
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from importlib import import_module
from uuid import UUID

import msgspec

from service.errors import BadInput
from service.log import EventLog
from service.postgres import Database, database_errors
from service.projections import sql
from service.projections.catalogue import catalogue
from service.projections.engine import REFUSALS
from service.projections.folding import Folder
from service.projections.memory import no_searching_for_cycles
from service.projections.projection import Projection
from service.projections.reading import Page, Reader, Share
from service.projections.tables import Connection, prepare

PAGE = 2_000  # events a query, about
FLUSH = 200_000  # positions of the log between two checkpoints


class Task(msgspec.Struct, frozen=True):
    """What one worker has to do: fold `share` of the log up to position `upto`.

    `what` names the projections (see `find_projections`), `generations` the generation to build of each, by
    name; `position` is where it was left, -1 for a beginning.
    """

    rebuild: UUID
    what: tuple[str, ...]
    generations: Mapping[str, int]
    share: Share
    position: int
    upto: int
    url: str = ""

    @property
    def lock(self) -> int:
        """The advisory lock that its worker holds, so that one left over and its successor do not meet."""
        return (self.rebuild.int & ((1 << 47) - 1)) << 16 | self.share.number


def find_projections(what: Sequence[str]) -> list[Projection]:
    """The projections that `what` names: each a name of the catalogue, or `module:Class`.

    Raises:
        BadInput: there is no such projection.

    """
    known = {projection.name: projection for projection in catalogue()}
    found: list[Projection] = []
    for name in what:
        if name in known:
            found.append(known[name])
            continue
        module, colon, attribute = name.partition(":")
        if not colon:
            raise BadInput("projection", f"there is no {name}", f"There are {', '.join(known)}")
        try:
            projection: Projection = getattr(import_module(module), attribute)()
        except (ImportError, AttributeError, TypeError) as error:
            raise BadInput(
                "projection", f"{name} cannot be had ({error})", "Write module:Class, importable from here"
            ) from error
        found.append(projection)
    return found


async def build(
    database: Database,
    log: EventLog,
    task: Task,
    projections: Sequence[Projection],
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Do `task`; `progress` is told each position reached and durable."""
    connection = await database.connect()
    try:
        with database_errors():
            await prepare(connection)
            await connection.execute("SELECT pg_advisory_lock($1)", task.lock, timeout=None)
            with no_searching_for_cycles():
                await Builder(connection, log, task, projections, progress).run()
    finally:
        connection.terminate()


class Builder:
    """The folders of one share, and how they are checkpointed together."""

    def __init__(
        self,
        connection: Connection,
        log: EventLog,
        task: Task,
        projections: Sequence[Projection],
        progress: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._log = log
        self._reader = Reader(log, projections, task.share)
        self._task = task
        self._reached = task.position
        self._progress = progress
        self._folders = [self._folder(projection, fresh=task.position < 0) for projection in projections]

    def _folder(self, projection: Projection, *, fresh: bool) -> Folder:
        share = self._task.share
        owns = share.has if share.of > 1 else None
        return Folder(projection, self._task.generations[projection.name], self._log, fresh=fresh, owns=owns)

    async def run(self) -> None:
        """Fold up to the task's end."""
        while self._reached < self._task.upto:
            async with aclosing(self._pages()) as pages:
                try:
                    while self._reached < self._task.upto:
                        await self._stretch(pages)
                except REFUSALS:
                    self._folders = [self._folder(one.projection, fresh=False) for one in self._folders]
                    await self._step_by_step()

    async def _stretch(self, pages: AsyncGenerator[Page]) -> None:
        """Fold up to the next checkpoint."""
        reached = self._reached
        async with self._connection.transaction():
            async for page in pages:
                for folder in self._folders:
                    await folder.fold(self._connection, page)
                    await folder.spill(self._connection)
                reached = page.upto
                if reached - self._reached >= FLUSH:
                    break
            for folder in self._folders:
                await folder.flush(self._connection)
            await self._checkpoint(reached)
        self._passed(reached)

    async def _step_by_step(self) -> None:
        """Do a stretch event by event and projection by projection, to set aside what cannot be written."""
        enough = self._reached + FLUSH
        async with aclosing(self._pages()) as pages:
            async for page in pages:
                async with self._connection.transaction():
                    for step in page.steps():
                        for place, folder in enumerate(self._folders):
                            self._folders[place] = await self._step(folder, step)
                    await self._checkpoint(page.upto)
                self._passed(page.upto)
                if page.upto >= enough:
                    break

    async def _step(self, folder: Folder, step: Page) -> Folder:
        """Let `folder` take a page of one event; returns the one that goes on."""
        try:
            async with self._connection.transaction():
                await folder.fold(self._connection, step)
                await folder.flush(self._connection)
        except REFUSALS as error:
            folder = self._folder(folder.projection, fresh=False)
            return await self._step(folder, step.refused(error))
        return folder

    async def _checkpoint(self, reached: int) -> None:
        task = self._task
        await self._connection.execute(sql.MOVE_SHARE, task.rebuild, task.share.number, reached)

    def _passed(self, reached: int) -> None:
        self._reached = reached
        self._progress(reached)

    async def _pages(self) -> AsyncGenerator[Page]:
        """What is left of the share, page by page; the next is read while one is folded."""
        upto, span = self._task.upto, PAGE * self._task.share.of

        def read(after: int) -> asyncio.Task[Page]:
            return asyncio.create_task(self._reader.page(after, min(after + span, upto)))

        reading = read(self._reached)
        try:
            while True:
                page = await reading
                if page.upto < upto:
                    reading = read(page.upto)
                yield page
                if page.upto >= upto:
                    return
        finally:
            reading.cancel()
