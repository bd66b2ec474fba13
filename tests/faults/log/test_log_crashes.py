"""Kill the writer, kill Postgres, again and again: nothing acknowledged is lost, doubled or skipped."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postmaster import Postmaster
from sqlalchemy.engine import URL, make_url

from service.log import EventLog, Producer, open_log
from service.log.verify import verify_log, workers
from service.postgres import open_pools
from service.postgres.embedded import EmbeddedPostgres
from service.postgres.schema import upgrade

PRODUCING = Path(__file__).parent / "producing.py"
ACKNOWLEDGED = re.compile(rb"([0-9a-f-]{36}) (\d+) (\d+)\n")
WAIT_S = 60


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A Postgres of its own, as durable as in production."""
    embedded = EmbeddedPostgres(tmp_path_factory.mktemp("crash"))
    embedded.start()
    yield embedded
    embedded.release()


@pytest.fixture
async def url(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> URL:
    monkeypatch.setattr(workers, "IN_PROCESS", 1 << 30)  # starting workers takes longer than verifying so few
    found = make_url(server.url)
    await upgrade(found)
    return found


class Acknowledged:
    """What the producers were told, over all rounds."""

    def __init__(self) -> None:
        self.positions: dict[tuple[str, int], int] = {}
        self.hit = 0

    def take(self, line: bytes) -> None:
        match = ACKNOWLEDGED.fullmatch(line)
        if match:  # the last line of a killed process may be cut off
            self.positions[match[1].decode(), int(match[2])] = int(match[3])


async def start_producing(url: URL) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(PRODUCING),
        url.render_as_string(hide_password=False),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


async def listen(process: asyncio.subprocess.Process, told: Acknowledged, events: int) -> None:
    assert process.stdout is not None
    for _ in range(events):
        line = await asyncio.wait_for(process.stdout.readline(), WAIT_S)
        assert line, "the producing process ended by itself"
        told.take(line)


async def end(process: asyncio.subprocess.Process, told: Acknowledged) -> None:
    process.kill()
    assert process.stdout is not None
    for line in (await process.stdout.read()).splitlines(keepends=True):
        told.take(line)
    await process.wait()


async def marked(process: asyncio.subprocess.Process, told: Acknowledged) -> None:
    """Wait until an append that begins now is acknowledged: then Postgres is up again."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_S):
        while (line := await process.stdout.readline()) != b"mark\n":
            assert line, "the producing process ended by itself"
            told.take(line)


async def check(url: URL, told: Acknowledged) -> int:
    """Compare the log with what was acknowledged; how many events are there beyond that."""
    async with open_pools(url) as database, open_log(database, max_payload_bytes=100) as log:
        report = await verify_log(database)
        assert report.differences == []
        there = await everything(log)
        assert sorted(there.values()) == list(range(report.size))
        lost = {key for key, position in told.positions.items() if there.get(key) != position}
        assert not lost
        return len(there) - len(told.positions)


async def everything(log: EventLog) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    after = -1
    while page := await log.read(after=after):
        for event in page:
            key = event.stream.removeprefix("session-"), Producer.count_of(event.event_id)
            assert key not in found, "an event is there twice"
            found[key] = event.position
        after = page[-1].position
    return found


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize("victim", ["process", "postgres"])
async def test_nothing_acknowledged_is_lost_to_a_kill(
    server: EmbeddedPostgres,
    url: URL,
    victim: str,
    rounds: int,
    record_property: Callable[[str, object], None],
) -> None:
    draw = random.Random(rounds)
    told = Acknowledged()
    process = await start_producing(url)
    await listen(process, told, 200)
    for _ in range(rounds):
        await listen(process, told, draw.randrange(1, 300))
        before = len(told.positions)
        if victim == "process":
            await end(process, told)
        else:
            Postmaster(server).end(draw.choice((signal.SIGQUIT, signal.SIGKILL)))
            await marked(process, told)  # it goes on by itself
            await end(process, told)
        told.hit += len(told.positions) >= before
        await check(url, told)
        process = await start_producing(url)
        await listen(process, told, 1)
    await end(process, told)
    unknown = await check(url, told)
    assert told.hit == rounds
    record_property("acknowledged", len(told.positions))
    record_property("committed although never acknowledged", unknown)
