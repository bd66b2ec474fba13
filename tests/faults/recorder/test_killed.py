"""The recorder as a process of its own that is killed at random, again and again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from accounting import account, decoded, number_of
from proxy import FaultProxy
from test_battery import AGENTS, DEADLINE_S, Traffic

from service import events
from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator

LONG_ROUNDS = int(os.environ.get("CALLTRAIL_TEST_ROUNDS", "200"))


async def test_killed_at_random_it_loses_nothing_and_records_nothing_twice(
    database: Database, log: EventLog, tmp_path: Path
) -> None:
    await rounds(database, log, tmp_path, count=6, seed=1)


@pytest.mark.long
async def test_the_same_for_many_rounds(database: Database, log: EventLog, tmp_path: Path) -> None:
    await rounds(database, log, tmp_path, count=LONG_ROUNDS, seed=2)


async def rounds(database: Database, log: EventLog, tmp_path: Path, *, count: int, seed: int) -> None:
    rng = random.Random(seed)
    async with (
        Simulator(seed=seed, agent_count=3, timeout_ms=500, max_interval_ms=2_500) as simulator,
        FaultProxy(simulator.port, rng) as proxy,
        zygote(database, proxy.url, tmp_path) as recorders,
    ):
        traffic = Traffic(simulator, rng)
        publishing = asyncio.create_task(keep_publishing(traffic))
        try:
            for number in range(count):
                proxy.harms = {"latency": 0.1, "reset": 0.03, "cut": 0.03} if rng.random() < 0.5 else {}
                child = await recorders.start()
                await asyncio.sleep(rng.uniform(0.1, 1.2))  # whatever it does at that moment is the fault
                if number % 5 == 2:
                    await recorders.end(child)
                else:
                    await recorders.kill(child)
                if number % 10 == 3:  # longer than the server keeps a session
                    await simulator.until(lambda: not simulator.bayeux.sessions, within_s=DEADLINE_S)
            proxy.harms = {}
            child = await recorders.start()
            await recorded_again(log, traffic)
            simulator.max_interval_ms = 60_000  # for the next one, however busy the machine
            await recorders.kill(child)
            child = await recorders.start()
            await recorded_again(log, traffic)
        finally:
            publishing.cancel()
        await recorders.end(child)
        told = [await account(log, simulator, agent) for agent in AGENTS]
        assert all(one.resumed for one in told), "no session was ever taken up"
        print(f"{count} rounds, {simulator.faults.struck}, {proxy.struck}: {told}")  # noqa: T201 for the long run


class Recorders:
    """Starts and ends the processes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def start(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return int(await asyncio.wait_for(self._process.stdout.readline(), DEADLINE_S))

    async def kill(self, child: int) -> None:
        await self._finish(child, signal.SIGKILL)

    async def end(self, child: int) -> None:
        await self._finish(child, signal.SIGTERM)

    async def _finish(self, child: int, number: signal.Signals) -> None:
        """Send the signal and wait for the end of a process that is not our child."""
        ended = asyncio.Event()
        handle = os.pidfd_open(child)  # readable when the process has ended
        loop = asyncio.get_running_loop()
        loop.add_reader(handle, ended.set)
        try:
            signal.pidfd_send_signal(handle, number)
            async with asyncio.timeout(DEADLINE_S):
                await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)


@asynccontextmanager
async def zygote(database: Database, gws_url: str, data_dir: Path) -> AsyncIterator[Recorders]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("zygote.py"))),
        *(database.url.render_as_string(hide_password=False), gws_url, str(data_dir), ",".join(AGENTS)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        yield Recorders(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def keep_publishing(traffic: Traffic) -> None:
    while True:
        traffic.publish(traffic.rng.choice(AGENTS))
        await asyncio.sleep(traffic.rng.uniform(0, 0.04))  # a load, so that messages come at any moment


async def recorded_again(log: EventLog, traffic: Traffic) -> None:
    """Wait until something published from now on is recorded for every agent."""
    waiting = {agent: traffic.publish(agent) for agent in AGENTS}
    after = await log.next_position() - 1
    async with asyncio.timeout(DEADLINE_S):
        async for page in log.follow(after=after):
            for stored in page:
                event = decoded(stored)
                if not isinstance(event, events.NotificationReceived) or event.agent not in waiting:
                    continue
                if number_of(stored.payload.partition(b"\n")[2]) >= waiting[event.agent]:
                    del waiting[event.agent]
            if not waiting:
                return
