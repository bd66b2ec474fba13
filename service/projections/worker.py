"""One share of a rebuild: folds its part of the log into the generations that are being built.

`build` is the work. As a program (`python -m service.projections.worker`) it does one `Task`, which it reads
from standard input; it says on standard output how far it is, and ends when its standard input does, that is
when the process that started it is gone. Each flush is one transaction with the share's checkpoint, so it can
be killed at any moment and started again.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from os import _exit
from uuid import UUID

import msgspec

from service.errors import BadInput
from service.log import EventLog, StoredEvent, share_of
from service.postgres import Database, database_errors, open_pools, parse_url
from service.projections import sql
from service.projections.catalogue import catalogue
from service.projections.engine import REFUSALS, concerning, describe_fault, read_page, set_aside
from service.projections.folding import Folder, SetAside
from service.projections.projection import Projection
from service.projections.tables import Connection, prepare

PAGE = 5_000  # events a query
FLUSH = 200_000  # events of the whole log between two checkpoints, about
SHARED_OUT = ("call", "transfer")
"""Streams that belong to one call each."""


class Task(msgspec.Struct, frozen=True):
    """What one worker has to do: fold share `share` of `shares` up to position `upto`.

    `what` names the projections (see `find_projections`), `generations` the generation to build of each, by
    name; `position` is where it was left, -1 for a beginning.
    """

    rebuild: UUID
    what: tuple[str, ...]
    generations: Mapping[str, int]
    share: int
    shares: int
    position: int
    upto: int
    url: str = ""


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
            await connection.execute("SELECT pg_advisory_lock($1)", lock_of(task), timeout=None)
            with no_searching_for_cycles():
                await Share(connection, log, task, projections, progress).run()
    finally:
        connection.terminate()


@contextmanager
def no_searching_for_cycles() -> Iterator[None]:
    """Folding makes no cycles, and looking for some among a hundred thousand rows costs more than folding."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def lock_of(task: Task) -> int:
    """The advisory lock that one worker holds, so that one left over and its successor do not meet."""
    return (task.rebuild.int & ((1 << 47) - 1)) << 16 | task.share


class Share:
    """The folders of one share, and how they are checkpointed together: each stretch is one transaction."""

    def __init__(
        self,
        connection: Connection,
        log: EventLog,
        task: Task,
        projections: Sequence[Projection],
        progress: Callable[[int], None],
    ) -> None:
        self.reached = task.position
        self._connection = connection
        self._log = log
        self._task = task
        self._projections = projections
        self._progress = progress
        self._folders: list[Folder] = []

    async def run(self) -> None:
        """Fold up to the task's end."""
        self._folders = self._begin(fresh=self.reached < 0)
        while self.reached < self._task.upto:
            pages = read_ahead(self._log, self._task, self.reached)
            try:
                while self.reached < self._task.upto:
                    await self._stretch(pages)
            except REFUSALS:
                self._folders = self._begin(fresh=False)
                await self._step_by_step(self.reached + FLUSH)
            finally:
                await pages.aclose()

    def _begin(self, *, fresh: bool) -> list[Folder]:
        task = self._task
        owns = (lambda name: share_of(name, task.shares) == task.share) if task.shares > 1 else None
        return [
            Folder(projection, task.generations[projection.name], fresh=fresh, owns=owns)
            for projection in self._projections
        ]

    async def _stretch(self, pages: Pages) -> None:
        """Fold up to the next checkpoint."""
        async with self._connection.transaction():
            async for upto, events in pages:
                batch, unread = read_page(events)
                for folder in self._folders:
                    await folder.fold(self._connection, batch)
                    await folder.spill(self._connection)
                    folder.set_aside += concerning(unread, folder.projection)
                if upto - self.reached >= FLUSH or upto == self._task.upto:
                    break
            await self._checkpoint(upto)
        self._passed(upto)

    async def _step_by_step(self, enough: int) -> None:
        """Fold event by event, projection by projection, to set aside what cannot be written."""
        pages = read_ahead(self._log, self._task, self.reached)
        async for upto, events in pages:
            async with self._connection.transaction():
                for event in events:
                    await self._step(event)
                await self._checkpoint(upto)
            self._passed(upto)
            if upto >= enough:
                break
        await pages.aclose()

    async def _step(self, event: StoredEvent) -> None:
        batch, unread = read_page([event])
        for place, folder in enumerate(self._folders):
            try:
                async with self._connection.transaction():
                    await folder.fold(self._connection, batch)
                    await folder.flush(self._connection)
            except REFUSALS as error:
                refused = SetAside(folder.projection.name, event.position, describe_fault(error))
                self._folders[place] = self._begin(fresh=False)[place]
                self._folders[place].set_aside = [*folder.set_aside, refused]
            else:
                folder.set_aside += concerning(unread, folder.projection)

    async def _checkpoint(self, upto: int) -> None:
        connection, task = self._connection, self._task
        for folder in self._folders:
            await folder.flush(connection)
            await set_aside(connection, folder.generation, folder.set_aside)
        await connection.execute(sql.MOVE_SHARE, task.rebuild, task.share, upto)

    def _passed(self, upto: int) -> None:
        self.reached = upto
        for folder in self._folders:
            folder.set_aside = []
        self._progress(upto)


Pages = AsyncGenerator[tuple[int, Sequence[StoredEvent]]]


async def read_ahead(log: EventLog, task: Task, after: int) -> Pages:
    """The share's pages, each with the position up to which it is complete; the next is read meanwhile."""

    def read(after: int) -> asyncio.Task[list[StoredEvent]]:
        if task.shares == 1:
            return asyncio.create_task(log.read(after=after, upto=task.upto, limit=PAGE))
        return asyncio.create_task(
            log.read_share(
                task.share, task.shares, shared_out=SHARED_OUT, after=after, upto=task.upto, limit=PAGE
            )
        )

    reading = read(after)
    try:
        while after < task.upto:
            page = await reading
            after = page[-1].position if len(page) == PAGE else task.upto
            if after < task.upto:
                reading = read(after)
            yield after, page
    finally:
        reading.cancel()


async def work(task: Task) -> None:
    async with open_pools(parse_url(task.url), max_size=2) as database:
        log = EventLog(database, max_payload_bytes=0)  # only read
        await build(database, log, task, find_projections(task.what), say)


def say(position: int) -> None:
    sys.stdout.write(f"{position}\n")
    sys.stdout.flush()


def end_with_input() -> None:
    """End this process at once when standard input does."""
    sys.stdin.read()
    _exit(1)


def main() -> None:
    """Do the task in the first line of standard input."""
    task = msgspec.json.decode(sys.stdin.readline(), type=Task)
    threading.Thread(target=end_with_input, daemon=True).start()
    with suppress(ModuleNotFoundError):  # uvloop is not made for Windows
        import uvloop

        uvloop.run(work(task))
        return
    asyncio.run(work(task))


if __name__ == "__main__":
    main()
