"""`calltrail demo --busy`: a contact centre's three weeks in a little over two minutes, recorded in earnest.

The simulator runs in a process of its own; what it tells goes through the same recorder, log and views as
anything else. Its calls bear the times of three weeks; the record bears those of now.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from service.api.serving import serving
from service.app import Application, open_application, running
from service.cli import show
from service.cli.log_commands import progress_bar
from service.config import Agent, Settings
from service.errors import CalltrailError
from service.recorder import list_sessions
from service.redaction import Fields, Order, Redactor
from service.web import create_site

FIRST_AGENT = 15_000
OPEN = ("requested", "dispatched", "accepted")
SETTLE_S = 2.0  # the simulated GWS answers at once: what it has not told by then it will not tell
OPENING_S = 60.0
ENDING_S = 120.0
REDACTED_CALLS = 3


class DayFailed(CalltrailError):
    """The simulated day did not come to its end."""


@dataclass(frozen=True)
class Day:
    """The simulator's process: where it is, and how to let its day pass."""

    url: str
    process: asyncio.subprocess.Process

    async def next_line(self) -> Any:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise DayFailed("the simulator has ended before its day")
        return json.loads(line)

    async def passes(self, commands: str, calls: int, progress: Callable[[int], None]) -> dict[str, Any]:
        """Let the calls come, their transfer commands sent to `commands`; what truly happened."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{commands}\n".encode())
        while "happened" not in (told := await self.next_line()):
            progress(min(told["calls"], calls))
        truth: dict[str, Any] = told
        return truth


@asynccontextmanager
async def simulated_day(calls: int, agents: int, seed: int) -> AsyncIterator[Day]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.simulator.day", str(calls), str(agents), str(seed)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Day((await process.stdout.readline()).decode().strip(), process)
    finally:
        process.stdin.close()
        await process.wait()


async def busy_demo(
    settings: Settings, *, calls: int, agents: int, seed: int, keep: bool, as_json: bool
) -> None:
    """Let a day pass, and say what came of it."""
    started = time.monotonic()
    async with simulated_day(calls, agents, seed) as day:
        settings = settings.model_copy(update={"gws_url": day.url, "settle_window_s": SETTLE_S})
        known = [
            Agent(user=user, password=SecretStr(f"secret-{user}"))
            for user in map(str, range(FIRST_AGENT, FIRST_AGENT + agents))
        ]
        async with (
            open_application(settings, known) as application,
            running(application),
            serving(create_site(application.services), settings.host, settings.port) as url,
        ):
            await sessions_open(application, agents)
            with progress_bar(hidden=as_json) as bar:
                task = bar.add_task("calls", total=calls)
                truth = await day.passes(url, calls, lambda done: bar.update(task, completed=done))
            await concluded(application)
            await redact_some(application)
            summary = await summarise(application, truth, time.monotonic() - started)
            if as_json:
                show.print_json(summary)
            else:
                show.print_table("A busy day", ("what", "how many"), list(summary.items()))
            if keep:
                show.console.print(f"Running: {url}/ and its API under {url}/v1. Ctrl-C ends it.")
                await asyncio.Event().wait()


async def sessions_open(application: Application, agents: int) -> None:
    """Wait until every agent is recorded."""
    async with asyncio.timeout(OPENING_S):
        while len(await list_sessions(application.database, "open")) < agents:
            await application.log.watch.beyond(await application.log.next_position() - 1)


async def concluded(application: Application) -> None:
    """Wait until every transfer has come to an end, or is in doubt."""
    async with asyncio.timeout(ENDING_S):
        while True:
            end = await application.log.next_position() - 1
            await application.engine.reached(end, timeout_s=ENDING_S)
            still = [
                one
                for outcome in OPEN
                for one in await application.queries.transfers(outcome=outcome, limit=1)
            ]
            if not still:
                return
            await application.log.watch.beyond(end)


async def redact_some(application: Application) -> None:
    """Erase a customer's number from a few calls, as somebody will have asked for."""
    redactor = Redactor(application.database, application.log, application.engine)
    transferred = await application.queries.transfers(outcome="confirmed", limit=REDACTED_CALLS)
    for row in transferred:
        fields = Fields(["userData.CustomerId"])
        await redactor.redact(Order(row["call_id"], fields, "privacy@example.org", "erasure asked for"))


async def summarise(application: Application, truth: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What was recorded, beside what the simulator knows."""
    transfers = await application.queries.transfers(limit=1_000_000)
    outcomes = Counter(f"transfers {row['outcome']}" for row in transfers)
    gaps = sum(
        span["kind"] != "complete" for row in await application.queries.coverages() for span in row["spans"]
    )
    return {
        "calls": truth["happened"]["placed"],
        "events in the log": await application.log.next_position(),
        **dict(outcomes.most_common()),
        "single-step transfers, by the simulator's own count": truth["executed"],
        "gaps in agents' records": gaps,
        "seconds": round(seconds, 1),
    }
