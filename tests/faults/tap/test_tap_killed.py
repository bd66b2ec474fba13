"""The tap as a process of its own that is killed at random under load, between two proxies that do harm."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from accounting import account, decoded, number_of, read_all
from applications import Application, keep_transferring
from proxy import FaultProxy, Harm

from service import events
from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator

LONG_ROUNDS = int(os.environ.get("CALLTRAIL_TEST_ROUNDS", "100"))
AGENTS = ("15000", "15001", "15002")
DEADLINE_S = 30.0
HARMS: dict[Harm, float] = {"latency": 0.1, "reset": 0.03, "cut": 0.03}


@pytest.mark.parametrize("ack", [True, False])
async def test_killed_at_random_all_that_was_given_is_recorded_once_or_lies_in_a_gap(
    database: Database, log: EventLog, *, ack: bool
) -> None:
    await rounds(database, log, count=4, seed=1, ack=ack)


@pytest.mark.long
@pytest.mark.parametrize("ack", [True, False])
async def test_the_same_for_many_rounds(database: Database, log: EventLog, *, ack: bool) -> None:
    await rounds(database, log, count=LONG_ROUNDS, seed=2, ack=ack)


async def rounds(database: Database, log: EventLog, *, count: int, seed: int, ack: bool) -> None:
    rng = random.Random(seed)
    port = free_port()
    async with (
        Simulator(seed=seed, agent_count=6, timeout_ms=500, max_interval_ms=2_500, ack=ack) as simulator,
        FaultProxy(simulator.port, rng) as behind,
        FaultProxy(port, rng) as before,
        zygote(database, behind.url, port) as taps,
    ):
        applications = [Application(before.url, agent, ack=ack) for agent in AGENTS]
        tried: list[str] = []
        numbers = Counter[str]()
        publishing = asyncio.create_task(keep_publishing(simulator, rng, numbers))
        load = [
            *(asyncio.create_task(one.run()) for one in applications),
            asyncio.create_task(keep_transferring(simulator, before.url, rng, tried)),
        ]
        child = await taps.start()
        for number in range(count):
            behind.harms = HARMS if rng.random() < 0.5 else {}
            before.harms = HARMS if rng.random() < 0.5 else {}
            await asyncio.sleep(rng.uniform(0.1, 1.2))
            if number % 4 == 2:  # another one takes over while this one drains
                successor = await taps.start()
                await taps.end(child)
                child = successor
            else:
                await taps.kill(child)
                child = await taps.start()
        behind.harms = before.harms = {}
        publishing.cancel()
        await given_again(simulator, applications, numbers)
        await ended(load)
        await taps.end(child)
        for one in applications:
            await check_given(log, one)
        told = [await account(log, simulator, agent) for agent in AGENTS]
        executed = [len(simulator.truth.transfers_of(call_id)) for call_id in tried]
        assert max(executed) == 1, "a call was transferred twice"
        struck = before.struck + behind.struck
        print(f"{count} rounds, {struck}, {sum(executed)} of {len(tried)}: {told}")  # noqa: T201 for the long run


async def ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: a cancellation that meets a time-out of aiohttp's can be lost."""
    async with asyncio.timeout(DEADLINE_S):
        pending = set(tasks)
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=1.0)


async def check_given(log: EventLog, application: Application) -> None:
    """Whatever the application was given is recorded once: the log was there all the time."""
    history = [
        (stored, event)
        for stored in await read_all(log)
        if (event := decoded(stored)) is not None and getattr(event, "agent", None) == application.user
    ]
    recorded = Counter(
        number_of(stored.payload.partition(b"\n")[2])
        for stored, event in history
        if isinstance(event, events.NotificationReceived)
    )
    assert not [number for number, times in recorded.items() if times > 1]
    missing = set(application.given) - set(recorded)
    assert not missing, f"{application.user} was given what is not recorded: {missing}"


async def keep_publishing(simulator: Simulator, rng: random.Random, numbers: Counter[str]) -> None:
    while True:
        publish(simulator, rng.choice(AGENTS), numbers)
        await asyncio.sleep(rng.uniform(0, 0.04))


def publish(simulator: Simulator, agent: str, numbers: Counter[str]) -> int:
    number = numbers[agent]
    numbers[agent] += 1
    simulator.inject(agent, b'{"channel":"/v2/me/calls","data":{"number":%d}}' % number)
    return number


async def given_again(simulator: Simulator, applications: list[Application], numbers: Counter[str]) -> None:
    """Wait until each application is given something that is published from now on.

    What is published into a session that its application is about to give up is never given: there is more.
    """
    first = {one.user: numbers[one.user] for one in applications}
    async with asyncio.timeout(DEADLINE_S):
        while waiting := [one for one in applications if max(one.given, default=-1) < first[one.user]]:
            for one in waiting:
                publish(simulator, one.user, numbers)
            await asyncio.sleep(0.5)


class Taps:
    """Starts and ends the processes."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self._port = port

    async def start(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        child = int(await asyncio.wait_for(self._process.stdout.readline(), DEADLINE_S))
        async with asyncio.timeout(DEADLINE_S):
            while not listening(self._port, child):  # noqa: ASYNC110 - not our child
                await asyncio.sleep(0.01)
        return child

    async def kill(self, child: int) -> None:
        await self._finish(child, signal.SIGKILL)

    async def end(self, child: int) -> None:
        await self._finish(child, signal.SIGTERM)

    @staticmethod
    async def _finish(child: int, number: signal.Signals) -> None:
        os.kill(child, number)
        async with asyncio.timeout(DEADLINE_S):
            while is_alive(child):  # noqa: ASYNC110 - not our child: nothing signals its end
                await asyncio.sleep(0.01)


@asynccontextmanager
async def zygote(database: Database, upstream: str, port: int) -> AsyncIterator[Taps]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("tap_zygote.py"))),
        *(database.url.render_as_string(hide_password=False), upstream, str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )
    try:
        yield Taps(process, port)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # what is left holds the pipe that `wait` waits for
        await process.wait()


def listening(port: int, child: int) -> bool:
    """Whether the process has a listening socket on the port."""
    sockets = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            sockets.add(f"socket:[{fields[9]}]")
    with suppress(OSError):
        return any(str(one.readlink()) in sockets for one in Path(f"/proc/{child}/fd").iterdir())
    return False


def is_alive(child: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(child, 0)
        return True
    return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
