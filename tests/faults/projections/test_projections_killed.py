from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from projecting import append, caught_up

from service.log import EventLog, NewEvent
from service.postgres import Database
from service.projections import Engine, Rebuilder, catalogue

ALL = [projection.name for projection in catalogue()]
SAME = dict.fromkeys(ALL, 0)
PROGRAM = Path(__file__).parent / "engine_program.py"


async def start(database: Database, *arguments: str) -> asyncio.subprocess.Process:
    url = database.url.render_as_string(hide_password=False)
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, url, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}
    )


async def kill(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.wait()


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.long)])
async def test_an_engine_that_is_killed_again_and_again_folds_each_event_once(
    database: Database, log: EventLog, kills: int
) -> None:
    source = (await append(log, 500, live=20, agents=30)).events()
    rng = random.Random(kills)
    for _ in range(kills):
        before = await database.pool.fetchval("SELECT max(position) FROM projection")
        process = await start(database, str(PROGRAM))
        feeding = asyncio.create_task(feed(log, source))
        await says(process, (before or 0) + rng.randrange(1, 900))
        await kill(process)
        await feeding
    engine = Engine(database, log, catalogue())
    engine.loop.start()
    await caught_up(engine, log)
    await engine.loop.stop()
    assert (await Rebuilder(database, log).rebuild(ALL, check=True)).different == SAME


async def says(process: asyncio.subprocess.Process, position: int) -> None:
    """Wait until the program says that it has durably reached `position`."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while int(line := await process.stdout.readline()) < position:
            assert line


async def feed(log: EventLog, source: Iterator[NewEvent]) -> None:
    """More than any engine is waited for to fold."""
    for _ in range(25):
        await log.append(list(itertools.islice(source, 40)))


async def test_another_engine_takes_over(database: Database, log: EventLog) -> None:
    source = (await append(log, 200)).events()
    process = await start(database, str(PROGRAM))
    assert process.stdout is not None
    async with asyncio.timeout(60):
        await process.stdout.readline()  # it leads
        other = Engine(database, log, catalogue())
        other.loop.start()
        await kill(process)
        await log.append([next(source) for _ in range(100)])
    await caught_up(other, log)
    await other.loop.stop()


REBUILD = """
import asyncio, sys
import service.projections.building as building
from service.log import open_log
from service.postgres import open_pools, parse_url
from service.projections import Rebuilder, catalogue

def say(done, total):
    print(done - 1, flush=True)

async def main():
    url = parse_url(sys.argv[-1])
    async with open_pools(url) as database, open_log(database, max_payload_bytes=1) as log:
        names = [projection.name for projection in catalogue()]
        await Rebuilder(database, log, shares=int(sys.argv[1])).rebuild(names, progress=say)

building.FLUSH, building.PAGE = 500, 250
asyncio.run(main())
"""


@pytest.mark.parametrize("shares", [1, 2])
async def test_a_rebuild_that_is_killed_in_the_middle_goes_on_where_it_was(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch, shares: int
) -> None:
    monkeypatch.setattr("service.projections.building.FLUSH", 500)
    await append(log, 8_000, live=50, agents=60)
    engine = Engine(database, log, catalogue())
    engine.loop.start()
    await caught_up(engine, log)
    process = await start(database, "-c", REBUILD, str(shares))
    await says(process, 400)
    await kill(process)
    left = await database.pool.fetchval("SELECT max(position) FROM projection_rebuild")
    assert left is not None
    seen: list[int] = []
    report = await Rebuilder(database, log, shares=shares).rebuild(
        ALL, check=True, progress=lambda done, _: seen.append(done)
    )
    await engine.loop.stop()
    assert report.resumed
    assert seen[0] > 0
    assert report.different == SAME
    assert report.swapped
    assert await database.pool.fetchval("SELECT count(*) FROM projection_rebuild") == 0
