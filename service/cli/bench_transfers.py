"""`calltrail bench transfers`: what calltrail adds to a transfer, and how many it carries in a second.

A simulated GWS runs in a process of its own, calltrail in another, on an embedded Postgres with everything
durable; this process is the agents' application. The same load goes once straight to GWS and once through
calltrail, interleaved, so that whatever slows the machine slows both. calltrail runs what a transfer needs
(HTTP, handler, queue, settler); `--with-everything` also the recording of all agents and the projections, as
`calltrail serve` does in one process.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

from service.api import create_api
from service.api.serving import serving
from service.app import open_application, running
from service.cli import show
from service.cli.options import AsJson, run
from service.config import load_settings
from service.transfers import build_body

AGENTS = 20
FIRST_AGENT = 15000
START_S = 60.0
BODY = build_body("15001", None, {"TransferReason": "Escalation"})


def transfers(
    seconds: Annotated[float, typer.Option(min=1, help="How long each part takes.")] = 10.0,
    rate: Annotated[float, typer.Option(min=1, help="Transfers a second for the latency.")] = 50.0,
    at_once: Annotated[int, typer.Option(min=1, help="Callers at once for the throughput.")] = 32,
    with_everything: Annotated[
        bool, typer.Option("--with-everything", help="With recording and projections in the process.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure added latency and sustained transfers a second, against a simulated GWS.

    calltrail bench transfers --json
    """

    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="calltrail-bench-") as folder:
            async with bench(Path(folder), whole=with_everything) as measurement:
                result = await measurement.latency(seconds, rate)
                result |= await measurement.throughput(seconds, at_once)
        result["with_everything"] = with_everything
        if as_json:
            show.print_json(result)
        else:
            show.print_table("Transfers", ("what", "value"), list(result.items()))

    run(main())


@dataclass
class Measurement:
    """The two addresses to send to, and the calls that are left to transfer."""

    gws: str
    calltrail: str
    http: aiohttp.ClientSession
    used: int = 0

    async def latency(self, seconds: float, rate: float) -> dict[str, Any]:
        """Send at a steady rate, in turns straight to GWS and through calltrail."""
        count = max(20, int(seconds * rate)) // 2 * 2
        calls = await self.place(2 * count)
        took: dict[str, list[float]] = {self.gws: [], self.calltrail: []}
        begun = time.perf_counter()

        async def one(number: int, call: tuple[str, str]) -> None:
            target = (self.gws, self.calltrail)[number % 2]
            await asyncio.sleep(max(0.0, begun + number / (2 * rate) - time.perf_counter()))
            took[target].append(await self.transfer(target, *call))

        await asyncio.gather(*(one(number, call) for number, call in enumerate(calls)))
        direct, through = sorted(took[self.gws]), sorted(took[self.calltrail])
        return {
            "rate_per_s": rate,
            "measured": len(through),
            "direct_p50_ms": percentile(direct, 50),
            "direct_p99_ms": percentile(direct, 99),
            "through_p50_ms": percentile(through, 50),
            "through_p99_ms": percentile(through, 99),
            "added_p50_ms": round(percentile(through, 50) - percentile(direct, 50), 3),
            "added_p99_ms": round(percentile(through, 99) - percentile(direct, 99), 3),
        }

    async def throughput(self, seconds: float, at_once: int) -> dict[str, Any]:
        """Let `at_once` callers transfer one call after the other through calltrail."""
        calls = iter(await self.place(int(seconds * 1_500)))
        begun = time.perf_counter()
        done = 0

        async def caller() -> None:
            nonlocal done
            for call in calls:
                if time.perf_counter() - begun > seconds:
                    return
                await self.transfer(self.calltrail, *call)
                done += 1

        await asyncio.gather(*(caller() for _ in range(at_once)))
        took_s = time.perf_counter() - begun
        return {
            "sustained_per_s": round(done / took_s, 1),
            "sustained_s": round(took_s, 2),
            "callers": at_once,
        }

    async def place(self, count: int) -> list[tuple[str, str]]:
        """Place calls from outside, answered, spread over the agents but the one who is transferred to."""
        placed = []
        for _ in range(count):
            self.used += 1
            agent = str(FIRST_AGENT + 2 + self.used % (AGENTS - 2))
            call_id = f"BENCH{self.used:027d}"
            place = {"caller": "0301234567", "agent": agent, "call_id": call_id}
            await self.tell("/sim/calls", place)
            await self.tell(f"/sim/calls/{call_id}", {"agent": agent, "operationName": "Answer"})
            placed.append((call_id, agent))
        return placed

    async def tell(self, path: str, document: dict[str, Any]) -> None:
        async with self.http.post(self.gws + path, json=document) as response:
            response.raise_for_status()

    async def transfer(self, target: str, call_id: str, agent: str) -> float:
        """Transfer a call; the milliseconds until the whole answer was there."""
        headers = {
            "Authorization": aiohttp.encode_basic_auth(agent, f"secret-{agent}"),
            "Content-Type": "application/json",
        }
        begun = time.perf_counter()
        async with self.http.post(
            f"{target}/api/v2/me/calls/{call_id}", data=BODY, headers=headers
        ) as response:
            answer = await response.read()
        took = (time.perf_counter() - begun) * 1_000
        if json.loads(answer).get("statusCode") != 0:
            raise RuntimeError(f"the transfer of {call_id} failed: {answer!r}")
        return took


@asynccontextmanager
async def bench(folder: Path, *, whole: bool) -> AsyncIterator[Measurement]:
    """Start GWS and calltrail, each in a process of its own, below `folder`."""
    agents_file = folder / "agents.toml"
    agents_file.write_text(
        "".join(
            f'[[agent]]\nuser = "{number}"\npassword = "secret-{number}"\n'
            for number in range(FIRST_AGENT, FIRST_AGENT + AGENTS)
        ),
        encoding="utf-8",
    )
    simulate = ("--port", "0", "--agents", str(AGENTS))
    async with process("from service.cli import main; main()", "simulate", *simulate) as gws:
        program = f"from {__name__} import serve_transfers; serve_transfers()"
        arguments = (gws, str(agents_file), str(folder), "whole" if whole else "path")
        async with (
            process(program, *arguments) as calltrail,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        ):
            yield Measurement(gws, calltrail, http)


@asynccontextmanager
async def process(program: str, *arguments: str) -> AsyncIterator[str]:
    """Run a Python program and give the URL that it prints first."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = (await child.stdout.readline()).decode()
        yield next(word.strip(",") for word in line.split() if word.startswith("http://"))
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


def serve_transfers() -> None:
    """The calltrail that is measured, in its own process; its arguments are those `bench` gives."""
    gws_url, agents_file, data_dir, extent = sys.argv[1:]
    settings = load_settings(gws_url=gws_url, agents_file=agents_file, data_dir=data_dir, port=0)

    async def main() -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        async with AsyncExitStack() as stack:
            application = await stack.enter_async_context(open_application(settings))
            if extent == "whole":
                await stack.enter_async_context(running(application))
            else:
                for loop in (application.settler.loop, application.handler.dispatcher.queue):
                    loop.start()
                    stack.push_async_callback(loop.stop)
            api = create_api(application.services)
            sys.stdout.write(await stack.enter_async_context(serving(api, settings.host, 0)) + "\n")
            sys.stdout.flush()
            await stopping.wait()

    run(main())


def percentile(ordered: list[float], percent: int) -> float:
    return round(statistics.quantiles(ordered, n=100, method="inclusive")[percent - 1], 3)
