"""All chunks of the log, checked on all cores."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from types import ModuleType
from typing import Any

import asyncpg

from service.log.codec import Codecs
from service.log.verify.chunk import Chunk, check_chunk
from service.postgres import Database, connect_arguments, database_errors

CHUNK = 1 << 14  # positions that a worker takes at a time; a multiple of TILE_WIDTH
IN_PROCESS = 1 << 13  # a log this small is verified without starting workers


async def check_chunks(
    database: Database,
    size: int,
    *,
    sizes: set[int],
    dictionaries: dict[int, bytes],
    workers: int | None,
    progress: Callable[[int, int], None],
) -> list[Chunk]:
    ends = [(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
    jobs = [(start, end, [one for one in sizes if start < one <= end]) for start, end in ends]
    progress(0, size)
    if size <= IN_PROCESS:
        codecs = Codecs().use(dictionaries)
        with database_errors():
            async with database.pool.acquire() as connection:
                return [await check_chunk(connection, codecs, *job) for job in jobs]
    arguments = connect_arguments(database.url)
    done: dict[int, Chunk] = {}
    loop = asyncio.get_running_loop()
    # Spawned, not forked: a fork would inherit this process's event loop and connections.
    with ProcessPoolExecutor(
        workers or os.cpu_count(), get_context("spawn"), prepare, (arguments, dictionaries)
    ) as pool:
        with nothing_to_import():
            tasks = [loop.run_in_executor(pool, work, *job) for job in jobs]
        for task in asyncio.as_completed(tasks):
            chunk = await task
            done[chunk.start] = chunk
            progress(sum(one.end - one.start for one in done.values()), size)
    return [done[start] for start, _ in ends]


@contextmanager
def nothing_to_import() -> Iterator[None]:
    """Keep processes that are spawned meanwhile from importing the main program: they need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class Worker:
    """What a worker process keeps from one chunk to the next: an event loop, a connection, dictionaries."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._codecs = Codecs()
        self._arguments: dict[str, Any] = {}
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    def prepare(self, arguments: dict[str, Any], dictionaries: dict[int, bytes]) -> None:
        self._arguments = arguments
        self._codecs.use(dictionaries)

    def run(self, start: int, end: int, sizes: Sequence[int]) -> Chunk:
        return self._runner.run(self._check(start, end, sizes))

    async def _check(self, start: int, end: int, sizes: Sequence[int]) -> Chunk:
        with database_errors():
            self._connection = self._connection or await asyncpg.connect(**self._arguments)
            return await check_chunk(self._connection, self._codecs, start, end, sizes)


WORKER = Worker()


def prepare(arguments: dict[str, Any], dictionaries: dict[int, bytes]) -> None:
    WORKER.prepare(arguments, dictionaries)


def work(start: int, end: int, sizes: Sequence[int]) -> Chunk:
    """Check one chunk in a process of its own."""
    return WORKER.run(start, end, sizes)
