"""The simulator as a server: `Simulator` for use in a process, `run` for a process of its own."""

import asyncio
import signal
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from aiohttp.typedefs import Handler

from service.simulator.control import Control
from service.simulator.door import Door
from service.simulator.notifications import Notifications
from service.simulator.rest import Rest
from service.simulator.scenario import Scenario
from service.simulator.world import World

SWEEPS_PER_MAX_INTERVAL = 8
BACKLOG = 4096
"""Connections that may wait to be accepted: a thousand agents may connect at once."""


@dataclass(kw_only=True)
class Simulator(World):
    """A GWS on loopback, in this process.

    `async with Simulator(seed=1) as sim` starts it and stops it; `sim.url` is its address. `stop` and
    `start` again keep the port, the calls and the truth, and forget all sessions, as a restarted server does.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._runner: web.AppRunner | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; raises OSError when the port is taken."""
        app = web.Application(middlewares=[_let_go])
        door = Door(self)
        for room in (Rest(self, door), Notifications(self, door), Control(self)):
            app.add_routes(room.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, backlog=BACKLOG, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Let the held polls go with 503, close every connection and forget the sessions."""
        if self._runner is None or self._sweeper is None:
            return
        self._sweeper.cancel()
        self.cancel_timers()
        self.bayeux.end_all("stopped", "stopped")
        self.logins.forget()
        await self._runner.cleanup()
        self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _sweep(self) -> None:
        while True:
            pause_ms = (self.interval_ms + self.max_interval_ms) / SWEEPS_PER_MAX_INTERVAL
            await asyncio.sleep(min(pause_ms / 1000, 1.0))
            self.bayeux.sweep()


@web.middleware
async def _let_go(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take it calmly when a client has gone before its answer: that is what clients do."""
    try:
        return await handler(request)
    except ConnectionError:
        return web.Response()


async def serve(simulator: Simulator, scenario: Scenario | None = None) -> None:
    """Run a simulator, with traffic if a scenario is given, until SIGTERM or SIGINT.

    Prints its URL, alone on a line, once it listens.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with simulator, asyncio.TaskGroup() as tasks:
        print(simulator.url, flush=True)  # noqa: T201 - the URL is what the caller waits for
        traffic = tasks.create_task(scenario.run()) if scenario else None
        await stopping.wait()
        if traffic:
            traffic.cancel()


def run(
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int = 1,
    *,
    busy: bool = False,
    calls_per_s: float = 1.0,
    through: str | None = None,
    **options: Any,
) -> None:
    """Run a simulator in this process until SIGTERM or SIGINT; `options` are those of `Options`.

    `busy` lets the traffic of `Scenario` come, `calls_per_s` calls per second, the agents' applications
    sending to `through` (the simulator itself when None).
    """
    simulator = Simulator(host=host, port=port, seed=seed, **options)
    scenario = Scenario(world=simulator, calls_per_s=calls_per_s, through=through) if busy else None
    asyncio.run(serve(simulator, scenario))
