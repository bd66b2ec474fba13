"""`calltrail bench tap`: what the tap adds to a request, and what a client with a held poll costs it.

Three processes: the simulator, the tap with an embedded Postgres of ordinary settings, and the load. The same
load goes to the simulator first without the tap and then through it, turn by turn; what the tap adds is the
difference of the two distributions' quantiles.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from service.cli.recorder_bench import (
    FIRST_AGENT,
    raise_file_limit,
    remove_database,
    resident_kb,
    simulator,
)
from service.config import Settings
from service.log import open_log
from service.postgres import open_database
from service.postgres.schema import upgrade
from service.tap import Tap, Upstream
from service.transfers import Timing, TransferHandler

CONNECTIONS = 40  # that share the paced load
TURNS = 3  # without and with the tap, in turns
OPENING_AT_ONCE = 50
SETTLING_S = 2.0
PASSING, RECORDED = "passing", "recorded"


class Connection(asyncio.Protocol):
    """A kept-alive connection that asks one thing after the other."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        at = self._buffer.find(b"Content-Length: ", 0, end)
        if end < 0 or self._answer is None:
            return
        length = int(self._buffer[at + 16 : self._buffer.index(b"\r\n", at)])
        if len(self._buffer) >= end + 4 + length and not self._answer.done():
            self._answer.set_result(bytes(self._buffer))
            self._buffer.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed"))

    async def ask(self, request: bytes) -> bytes:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def connect(url: str) -> Connection:
    host, _, port = url.removeprefix("http://").rpartition(":")
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, int(port))
    return connection


def request(method: str, path: str, user: int, body: bytes = b"", cookies: str = "") -> bytes:
    basic = b64encode(f"{user}:secret-{user}".encode()).decode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: gws.example",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
        "Accept: application/json, text/javascript, */*; q=0.01",
        "Accept-Language: en-GB,en;q=0.9",
        f"Authorization: Basic {basic}",
        *([f"Cookie: {cookies}"] if cookies else []),
        *(["Content-Type: application/json;charset=UTF-8"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


COMMAND = b'{"operationName":"UpdateUserData","userData":{"Reason":"Escalation","Note":"from the load"}}'


@dataclass
class Latencies:
    """Seconds, in the order in which they were measured."""

    seconds: list[float] = field(default_factory=list)

    def quantile(self, part: float) -> float:
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class Polling:
    """A client with a CometD session that polls for ever."""

    def __init__(self, url: str, user: int) -> None:
        self._url = url
        self._user = user
        self._cookies: dict[str, str] = {}
        self._client_id = ""
        self._ack = 0
        self._connection: Connection | None = None
        self.task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._connection = await connect(self._url)
        await self._ask("GET", "/api/v2/me", b"")
        hello: dict[str, Any] = {
            "channel": "/meta/handshake",
            "version": "1.0",
            "supportedConnectionTypes": ["long-polling"],
        }
        [reply] = await self._say(hello | {"ext": {"ack": True}})
        self._client_id = reply["clientId"]
        await self._say({"channel": "/meta/subscribe", "subscription": ["/v2/me/calls"]})
        self.task = asyncio.create_task(self._poll())

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await self.task
        if self._connection is not None:
            self._connection.close()

    async def _poll(self) -> None:
        while True:
            message = {
                "channel": "/meta/connect",
                "connectionType": "long-polling",
                "ext": {"ack": self._ack},
            }
            for reply in await self._say(message):
                if reply["channel"] == "/meta/connect":
                    self._ack = reply["ext"]["ack"]

    async def _say(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        body = json.dumps([{"id": "1", "clientId": self._client_id} | message]).encode()
        answer = await self._ask("POST", "/api/v2/notifications", body)
        replies: list[dict[str, Any]] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return replies

    async def _ask(self, method: str, path: str, body: bytes) -> bytes:
        assert self._connection is not None
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        answer = await self._connection.ask(request(method, path, self._user, body, cookies))
        for line in answer.partition(b"\r\n\r\n")[0].decode().split("\r\n"):
            if line.lower().startswith("set-cookie:"):
                name, _, value = line.partition(":")[2].partition(";")[0].strip().partition("=")
                self._cookies[name] = value
        return answer


async def load(url: str, asked: bytes, per_second: int, seconds: float, into: Latencies) -> float:
    """Ask at a steady pace; how many were answered in a second."""
    idle = asyncio.Queue[Connection]()
    connections = [await connect(url) for _ in range(CONNECTIONS)]
    for connection in connections:
        await connection.ask(asked)
        idle.put_nowait(connection)
    answered = 0

    async def one(due: float) -> None:
        nonlocal answered
        connection = await idle.get()
        await connection.ask(asked)
        into.seconds.append(time.perf_counter() - due)
        answered += 1
        idle.put_nowait(connection)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            tasks.create_task(one(time.perf_counter()))
    took = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return answered / took


@dataclass(frozen=True)
class TapProcess:
    """The tap's process: tells its memory and its time when asked."""

    url: str
    process: asyncio.subprocess.Process

    async def told(self) -> tuple[float, float]:
        """Its memory in kB, and the seconds of processor time that it has used."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        memory, processor = (await self.process.stdout.readline()).split()
        return float(memory), float(processor)


@asynccontextmanager
async def tap_process(upstream: str, folder: str) -> AsyncIterator[TapProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service.cli.tap_bench", upstream, folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield TapProcess((await process.stdout.readline()).decode().strip(), process)
    finally:
        process.stdin.close()
        await process.wait()


async def measure(clients: int, *, per_second: int = 1_000, seconds: float = 12.0) -> dict[str, float]:
    """Open that many clients with held polls, then ask at that rate, without and with the tap."""
    raise_file_limit()
    user = FIRST_AGENT
    kinds = {
        PASSING: request("GET", "/api/v2/me", user),
        RECORDED: request("POST", "/api/v2/me/calls/none", user, COMMAND),
    }
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="calltrail-bench-tap-"))
        stack.callback(remove_database, Path(folder))
        upstream = await stack.enter_async_context(simulator(max(clients, 1)))
        tap = await stack.enter_async_context(tap_process(upstream.url, folder))
        before, _ = await tap.told()
        polling = [Polling(tap.url, FIRST_AGENT + number) for number in range(clients)]
        for at in range(0, clients, OPENING_AT_ONCE):
            await asyncio.gather(*(one.open() for one in polling[at : at + OPENING_AT_ONCE]))
        await asyncio.sleep(SETTLING_S)
        held, _ = await tap.told()
        figures: dict[str, float] = {"clients": clients}
        rates = []
        for name, asked in kinds.items():
            directly, tapped = Latencies(), Latencies()
            for _ in range(TURNS):
                turn_s = seconds / len(kinds) / 2 / TURNS
                await load(upstream.url, asked, per_second, turn_s, directly)
                _, used = await tap.told()
                began = time.monotonic()
                rates.append(await load(tap.url, asked, per_second, turn_s, tapped))
                figures[f"{name}_cpu"] = round(((await tap.told())[1] - used) / (time.monotonic() - began), 2)
            prefix = "added" if name == PASSING else "recorded_added"
            for part, label in ((0.5, "p50_ms"), (0.99, "p99_ms")):
                figures[f"{name}_directly_{label}"] = round(directly.quantile(part), 2)
                figures[f"{prefix}_{label}"] = round(tapped.quantile(part) - directly.quantile(part), 2)
        figures["requests_per_s"] = round(min(rates))
        figures["kb_per_client"] = round((held - before) / max(clients, 1), 1)
        lost = sum(one.task is not None and one.task.done() for one in polling)
        figures["polls_lost"] = lost
        await asyncio.gather(*(one.close() for one in polling))
        return figures


async def serve_tap(upstream: str, folder: str) -> None:
    """The second process: a tap that tells its memory for each line of standard input."""
    raise_file_limit()
    settings = Settings(data_dir=Path(folder), database_url=None)
    async with open_database(settings) as database:
        await upgrade(database.url)
        async with open_log(database, max_payload_bytes=settings.max_payload_bytes) as log:
            handler = TransferHandler(database, log, {}, Timing())
            tap = Tap(Upstream(upstream), database, log, handler, listen="127.0.0.1:0", drain_s=0.0)
            await tap.start()
            print(tap.url, flush=True)  # noqa: T201 the parent waits for it
            loop = asyncio.get_running_loop()
            while await loop.run_in_executor(None, sys.stdin.readline):
                print(resident_kb(), time.process_time(), flush=True)  # noqa: T201 the same
            await tap.stop()


if __name__ == "__main__":
    from service.cli.options import run

    run(serve_tap(sys.argv[1], sys.argv[2]))
