"""`calltrail bench recorder`: thousands of sessions in one process, against the simulator in a second one.

The database is an embedded Postgres with its ordinary settings, so what counts as durable is durable. "Wire"
is the moment at which the simulator queues a notification for its session; "durable" is when the append has
returned. Both are read from the clock of the one machine. The simulator does not collect garbage while it
publishes: with 5,000 sessions it would stand still for half a second between "wire" and the first byte.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from service.cometd import shared_http
from service.config import Agent, Settings
from service.log import EventLog, NewEvent
from service.postgres import open_database
from service.postgres.embedded import EmbeddedPostgres, locked
from service.postgres.schema import upgrade
from service.recorder import Access, Accesses, Recorder, Status, Vault

FIRST_AGENT = 15000
STAMP = b'"stamp":'
NOTIFICATION = Path(__file__).parent.parent / "simulator" / "data" / "sample1-notification.json"
OPENING_S = 300.0
TAIL_S = 60.0
SETTLING_S = 5.0  # the last snapshots, and what a recorder does when its sessions stand


class TimedLog(EventLog):
    """A log that notes how old each stamped notification is when its append has returned, in seconds."""

    ages: list[float]

    async def append(self, events: Sequence[NewEvent], **more: Any) -> list[int]:
        positions = await super().append(events, **more)
        now = time.time()
        for event in events:
            at = event.payload.rfind(STAMP)
            if at >= 0:
                self.ages.append(now - float(event.payload[at + len(STAMP) :].rstrip(b"}\n")))
        return positions


@dataclass(frozen=True)
class Load:
    """The simulator's process, which is told when to publish and how much."""

    url: str
    process: asyncio.subprocess.Process

    async def publish(self, per_second: int, seconds: int) -> int:
        """Have notifications published; how many there were."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{per_second} {seconds}\n".encode())
        return int(await self.process.stdout.readline())


@asynccontextmanager
async def simulator(sessions: int) -> AsyncIterator[Load]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.cli.recorder_bench", str(sessions)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Load((await process.stdout.readline()).decode().strip(), process)
    finally:
        process.stdin.close()
        await process.wait()


async def measure(sessions: int, *, per_second: int = 1_000, seconds: int = 20) -> dict[str, float]:
    """Open that many sessions, publish to them evenly, and say what it took."""
    raise_file_limit()
    agents = [
        Agent(user=str(user), password=SecretStr(f"secret-{user}"))
        for user in range(FIRST_AGENT, FIRST_AGENT + sessions)
    ]
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="calltrail-bench-recorder-"))
        stack.callback(remove_database, Path(folder))
        load = await stack.enter_async_context(simulator(sessions))
        settings = Settings(data_dir=Path(folder), database_url=None, gws_url=load.url)
        database = await stack.enter_async_context(open_database(settings))
        await upgrade(database.url)
        log = TimedLog(database, max_payload_bytes=settings.max_payload_bytes)
        log.ages = []
        await log.start()
        stack.push_async_callback(log.stop)
        http = await stack.enter_async_context(shared_http())
        accesses = Accesses(lambda agent: Access.of(agent, http, load.url, timeout_s=30.0), agents)
        recorder = Recorder(database, log, accesses, Vault(settings.data_dir), load.url)
        before, began = resident_kb(), time.monotonic()
        recorder.start()
        stack.push_async_callback(recorder.stop, keep_sessions=True)
        await all_open(recorder, sessions)
        opened = time.monotonic() - began
        await asyncio.sleep(SETTLING_S)
        gc.collect()
        used = resident_kb() - before
        processor, began = time.process_time(), time.monotonic()
        published = await load.publish(per_second, seconds)
        async with asyncio.timeout(TAIL_S):
            while len(log.ages) < published:  # noqa: ASYNC110 the log is not ours to signal from
                await asyncio.sleep(0.05)
        took = time.monotonic() - began
        ages = sorted(log.ages)
        return {
            "sessions": sessions,
            "kb_per_session": round(used / sessions, 1),
            "notifications_per_s": round(len(ages) / took),
            "wire_to_durable_p50_ms": round(1000 * ages[len(ages) // 2], 1),
            "wire_to_durable_p99_ms": round(1000 * ages[len(ages) * 99 // 100], 1),
            "notifications": len(ages),
            "recorder_cpu": round((time.process_time() - processor) / took, 2),
            "opening_s": round(opened, 1),
        }


async def all_open(recorder: Recorder, sessions: int) -> None:
    async with asyncio.timeout(OPENING_S):
        while True:
            states = [agent.status for agent in recorder.agents.values()]
            if len(states) == sessions and all(state is Status.OPEN for state in states):
                return
            await asyncio.sleep(0.2)


def remove_database(folder: Path) -> None:
    """Wait for the embedded server's end and remove its files, which are elsewhere where root measures."""
    home = EmbeddedPostgres(folder).home
    with locked(home / "supervisor.lock"):
        shutil.rmtree(home)
    folder.mkdir(exist_ok=True)  # for whoever made it to remove


def raise_file_limit() -> None:
    """Each session holds a connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1024


async def serve_load(sessions: int) -> None:
    """The second process: a simulator that publishes what standard input asks for."""
    from service.simulator import Simulator

    raise_file_limit()
    notification = NOTIFICATION.read_bytes().rstrip().removesuffix(b"}")
    loop = asyncio.get_running_loop()
    async with Simulator(agent_count=sessions, first_agent=FIRST_AGENT, timeout_ms=20_000) as simulated:
        print(simulated.url, flush=True)  # noqa: T201 the parent waits for it
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            per_second, seconds = map(int, line.split())
            gc.disable()
            simulated.truth.published.clear()
            began = loop.time()
            for number in range(per_second * seconds):
                ahead = began + number / per_second - loop.time()
                if ahead > 0:
                    await asyncio.sleep(ahead)
                agent = str(FIRST_AGENT + number * 7919 % sessions)
                simulated.inject(agent, notification + b"," + STAMP + b"%.6f}" % time.time())
            print(per_second * seconds, flush=True)  # noqa: T201 the same


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve_load(int(sys.argv[1])))
    else:
        uvloop.run(serve_load(int(sys.argv[1])))
