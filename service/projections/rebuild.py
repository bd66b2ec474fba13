"""Building projections anew from the whole log, beside the live ones.

The next generation of each is built by several processes, each of which folds the calls of its share, up to
where the log ended at the beginning; then it gets its indexes, is brought up to the live generation, compared
with it if that is wanted, and made live in one transaction. Readers ask for the live generation and never see
one half built; the engine meanwhile goes on with the live one.

A rebuild that was cut off is taken up again where each process had made its last checkpoint. The generation
that was replaced is kept until the next rebuild, or until `drop_old`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import msgspec

from service.errors import CalltrailError, Conflict
from service.events import ProjectionRebuilt, encode
from service.log import EventLog, NewEvent, Producer
from service.postgres import Database, database_errors
from service.projections import sql
from service.projections.building import Task, build, find_projections
from service.projections.compare import Difference, differences
from service.projections.engine import BATCH, enter
from service.projections.folding import Folder
from service.projections.projection import Projection
from service.projections.reading import Reader, Share
from service.projections.refold import refold_redacted
from service.projections.tables import Connection, ProjectionTable, prepare, teach_json
from service.projections.worker import run_process

REBUILD_LOCK = 7_232_501_152
ONE_PROCESS = 20_000  # events below which starting processes costs more than they save
SHOWN = 20  # differences told in full
Progress = Callable[[int, int], None]


class Report(msgspec.Struct):
    """What a rebuild did: `generations` built, `events` folded, whether it was `resumed`, and `swapped`.

    `different` counts, by projection, the rows that read differently than the live ones (None: not
    compared), and `differences` shows the first of them. `set_aside` counts events that could not be folded.
    """

    generations: dict[str, int]
    events: int
    shares: int
    resumed: bool = False
    swapped: bool = False
    different: dict[str, int] | None = None
    differences: list[Difference] = []
    set_aside: int = 0


class Rebuilder:
    """Rebuilds projections of `log`. `shares` processes; by default one for each processor."""

    def __init__(self, database: Database, log: EventLog, *, shares: int | None = None) -> None:
        self._database = database
        self._log = log
        self._shares = shares

    async def rebuild(
        self,
        what: Sequence[str],
        *,
        check: bool = False,
        swap: bool = True,
        progress: Progress = lambda _done, _total: None,
    ) -> Report:
        """Build the next generation of each projection of `what` and, unless `swap` is false, make it live.

        With `check` the new generation is compared with the live one first, and one that differs is not made
        live. A generation that is not made live is deleted. `progress` is told how many events of how many
        are done.

        Raises:
            BadInput: there is no such projection.
            Conflict: another rebuild is running.

        """
        projections = find_projections(what)
        async with self._alone() as connection:
            await enter(connection, projections)
            tasks, resumed = await self._begin(connection, what, projections)
            generations = dict(tasks[0].generations)
            report = Report(generations, events=tasks[0].upto + 1, shares=len(tasks), resumed=resumed)
            await self._build(tasks, projections, progress)
            projections = await self._not_live(projections, generations)
            for projection in projections:
                await self._finish(connection, projection, generations[projection.name], tasks[0].upto)
                if check:
                    await self._bring_up_live(connection, projection, generations[projection.name])
                    await self._check(connection, projection, generations[projection.name], report)
            report.swapped = swap and not any((report.different or {}).values())
            for projection in projections:
                generation = generations[projection.name]
                report.set_aside += await connection.fetchval(COUNT_ASIDE, projection.name, generation)
                if report.swapped:
                    await self._swap(connection, projection, generation)
                else:
                    await drop(connection, projection, generation)
            await connection.execute(sql.END_REBUILD, tasks[0].rebuild)
        return report

    async def drop_old(self, what: Sequence[str]) -> dict[str, list[int]]:
        """Delete all generations but the live one, also one that is half built; tells which."""
        async with self._alone() as connection:
            await connection.execute(sql.FORGET_REBUILDS, list(what))
            return {
                projection.name: await self._drop_others(connection, projection, keep=())
                for projection in find_projections(what)
            }

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Connection]:
        """A connection that holds the lock of rebuilding."""
        connection = await self._database.connect()
        try:
            with database_errors():
                if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", REBUILD_LOCK):
                    raise Conflict("another rebuild is running. Wait until it has ended, or end it")
                await prepare(connection)
                yield connection
        finally:
            connection.terminate()

    async def _begin(
        self, connection: Connection, what: Sequence[str], projections: Sequence[Projection]
    ) -> tuple[list[Task], bool]:
        """The tasks of a rebuild that was cut off, or of a new one."""
        text = " ".join(sorted(what))
        if rows := await connection.fetch(sql.UNFINISHED, text):
            return [
                Task(
                    row["id"],
                    tuple(what),
                    row["generations"],
                    Share(row["share"], row["shares"]),
                    row["position"],
                    row["upto"],
                )
                for row in rows
            ], True
        upto = await self._log.next_position() - 1
        shares = self._shares or (1 if upto < ONE_PROCESS else os.cpu_count() or 1)
        if not all(projection.by_call for projection in projections):
            shares = 1
        rebuild = uuid4()
        async with connection.transaction():
            generations = {
                projection.name: await connection.fetchval(sql.ENTER_NEXT, projection.name)
                for projection in projections
            }
            for projection in projections:
                await ProjectionTable(projection, generations[projection.name]).create(connection)
            for share in range(shares):
                await connection.execute(sql.BEGIN_SHARE, rebuild, share, shares, upto, text, generations)
        return [
            Task(rebuild, tuple(what), generations, Share(share, shares), -1, upto) for share in range(shares)
        ], False

    async def _not_live(
        self, projections: Sequence[Projection], generations: Mapping[str, int]
    ) -> list[Projection]:
        """Those whose new generation is not live yet: a rebuild may have been cut off among its swaps."""
        live = {row["name"]: row["generation"] for row in await self._live(projections)}
        return [one for one in projections if live[one.name] != generations[one.name]]

    async def _live(self, projections: Sequence[Projection]) -> list[asyncpg.Record]:
        return await self._database.pool.fetch(sql.LIVE, [projection.name for projection in projections])

    async def _build(
        self, tasks: Sequence[Task], projections: Sequence[Projection], progress: Progress
    ) -> None:
        reached = {task.share: task.position for task in tasks}
        total = tasks[0].upto + 1

        def passing(share: Share) -> Callable[[int], None]:
            def passed(position: int) -> None:
                reached[share] = position
                progress(sum(reached.values()) // len(reached) + 1, total)

            passed(reached[share])
            return passed

        if len(tasks) == 1:
            await build(self._database, self._log, tasks[0], projections, passing(tasks[0].share))
            return
        try:
            async with asyncio.TaskGroup() as group:
                for task in tasks:
                    group.create_task(run_process(self._with_url(task), passing(task.share)))
        except* CalltrailError as errors:
            raise errors.exceptions[0] from None

    def _with_url(self, task: Task) -> Task:
        url = self._database.url.render_as_string(hide_password=False)
        return msgspec.structs.replace(task, url=url)

    async def _finish(
        self, connection: Connection, projection: Projection, generation: int, upto: int
    ) -> None:
        """Make the generation complete up to `upto` visible, and bring it up to where the live one is."""
        table = ProjectionTable(projection, generation)
        if not await connection.fetchval(
            "SELECT relispartition FROM pg_class WHERE relname = $1", table.name
        ):
            async with connection.transaction():
                await table.attach(connection)
                await connection.execute(sql.MOVE, projection.name, generation, upto)
        await self._catch_up(connection, projection, generation, await self._live_position(projection))

    async def _live_position(self, projection: Projection) -> int:
        position: int = (await self._live([projection]))[0]["position"]
        return position

    async def _catch_up(
        self, connection: Connection, projection: Projection, generation: int, upto: int
    ) -> None:
        """Fold into a generation up to `upto`, as the engine does into the live one."""
        reached = await connection.fetchval(sql.POSITION, projection.name, generation)
        folder, reader = Folder(projection, generation, self._log), Reader(self._log, [projection])
        while reached < upto:
            page = await reader.page(reached, min(reached + BATCH, upto))
            async with connection.transaction():
                await folder.advance(connection, page)
                await refold_redacted(connection, self._log, folder, page)
            reached = page.upto

    async def _bring_up_live(self, connection: Connection, projection: Projection, generation: int) -> None:
        """Bring the live generation up to the new one, where no engine has done so."""
        async with connection.transaction():
            live = await connection.fetchrow(sql.LOCK_LIVE, [projection.name])
            assert live is not None
            upto = await connection.fetchval(sql.POSITION, projection.name, generation)
            await self._catch_up(connection, projection, live["generation"], upto)

    @asynccontextmanager
    async def _level(
        self, connection: Connection, projection: Projection, generation: int
    ) -> AsyncIterator[int]:
        """Hold the live generation where it is, for a moment, with the new one brought up to it."""
        await self._catch_up(connection, projection, generation, await self._live_position(projection))
        holder = await self._database.connect()
        try:
            async with holder.transaction():
                live = await holder.fetchrow(sql.LOCK_LIVE, [projection.name])
                assert live is not None
                await self._catch_up(connection, projection, generation, live["position"])
                yield live["generation"]
        finally:
            holder.terminate()

    async def _check(
        self, connection: Connection, projection: Projection, generation: int, report: Report
    ) -> None:
        """Compare at one position, on a snapshot of the database: the engine is held up only to take it."""
        reader = await self._database.connect()
        try:
            await teach_json(reader)
            async with reader.transaction(isolation="repeatable_read", readonly=True):
                async with self._level(connection, projection, generation) as live:
                    await reader.execute("SELECT 1")  # the snapshot is taken
                count, shown = await differences(reader, projection, live, generation, limit=SHOWN)
        finally:
            reader.terminate()
        report.different = {**(report.different or {}), projection.name: count}
        report.differences += shown

    async def _swap(self, connection: Connection, projection: Projection, generation: int) -> None:
        name = projection.name
        await self._catch_up(connection, projection, generation, await self._live_position(projection))
        async with connection.transaction():  # what is left to catch up is little
            live = await connection.fetchrow(sql.LOCK_LIVE, [name])
            assert live is not None
            upto = live["position"]
            await self._catch_up(connection, projection, generation, upto)
            await connection.execute(sql.SWAP_OUT, name)
            await connection.execute(sql.SWAP_IN, name, generation)
        await self._drop_others(connection, projection, keep=(live["generation"],))
        event = ProjectionRebuilt(name=name, generation=generation, upto=upto)
        await self._log.append(
            [NewEvent(Producer.new().key, f"projection-{name}", event.kind(), encode(event))]
        )

    async def _drop_others(
        self, connection: Connection, projection: Projection, *, keep: Sequence[int]
    ) -> list[int]:
        dropped = []
        for (generation,) in await connection.fetch(sql.GENERATIONS, projection.name):
            if generation not in keep:
                await drop(connection, projection, generation)
                dropped.append(generation)
        return dropped


COUNT_ASIDE = "SELECT count(*) FROM projection_set_aside WHERE name = $1 AND generation = $2"


async def drop(connection: Connection, projection: Projection, generation: int) -> None:
    """Delete a generation that is not live."""
    await ProjectionTable(projection, generation).drop(connection)
    async with connection.transaction():
        await connection.execute(sql.FORGET_SET_ASIDE, projection.name, generation)
        await connection.execute(sql.FORGET, projection.name, generation)
