"""Peers that see and say bytes: a server that answers as told, a client that sends what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from service.tap.server import Server
from service.tap.upstream import Upstream

DEADLINE_S = 20.0

Script = Callable[["RawServer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """Keeps everything it is sent; `script` serves each connection, by default with `answer` per head."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    script: Script | None = None
    tls: Any = None
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0
    gone: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await (self.script or answering)(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self.gone.release()

    async def left(self) -> None:
        """Wait until one more connection has been closed."""
        async with asyncio.timeout(DEADLINE_S):
            await self.gone.acquire()

    async def read_head(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.received += head
        self.came.set()
        return head

    async def read(self, reader: asyncio.StreamReader, count: int) -> bytes:
        body = await reader.readexactly(count)
        self.received += body
        return body


async def answering(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not reader.at_eof():
        head = await server.read_head(reader)
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                await server.read(reader, int(line.partition(b":")[2]))
        writer.write(server.answer)
        await writer.drain()


@dataclass
class RawClient:
    """One connection to a port."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes, answer_length: int) -> bytes:
        self.writer.write(request)
        return await self.read(answer_length)

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection; b"reset" appended if it was reset."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b"reset"


@asynccontextmanager
async def raw_client(url: str, **tls: Any) -> AsyncIterator[RawClient]:
    host, _, port = url.partition("://")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), **tls)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()


class Plain:
    """A site that passes everything on and wants to know nothing."""

    def __init__(self, url: str, **given: Any) -> None:
        self.upstream = Upstream(url, **given)
        self.draining = False

    def whole(self, _: object) -> None: ...

    def interest(self, _: object) -> None: ...

    def frames(self, _: object) -> None: ...


@asynccontextmanager
async def plain_tap(url: str, *, tls: Any = None, **given: Any) -> AsyncIterator[Server]:
    """A tap that passes on to `url` and records nothing."""
    server = Server(Plain(url, **given), "127.0.0.1", 0, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0.0)
