"""A proxy in front of Postgres that can leave listeners half open: nothing passes, and nothing is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import URL

PORT = 5432
CHUNK = 1 << 16
LISTENS = b'LISTEN "event_log"'


class StallingProxy:
    """Passes everything between its clients and the server of `url`, until told to `stall`."""

    def __init__(self, url: URL) -> None:
        self._host = str(url.host or url.query.get("host"))
        self._port = url.port or PORT
        self._passing: dict[asyncio.StreamWriter, list[asyncio.Task[None]]] = {}
        self._clients: list[asyncio.StreamWriter] = []
        self._listening: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._host.startswith("/"):
            up = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        else:
            up = await asyncio.open_connection(self._host, self._port)
        self._clients.append(writer)
        ways = (self._pass_on(reader, up[1]), self._pass_on(up[0], writer))
        self._passing[up[1]] = [asyncio.create_task(way) for way in ways]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if LISTENS in data:
                self._listening.append(writer)
            writer.write(data)
            await writer.drain()
        writer.close()

    def stall(self) -> None:
        """From now on nothing passes on the connections that listen; later ones pass."""
        assert self._listening
        for writer in self._listening:
            self._cut(writer)
        self._listening.clear()

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        for task in self._passing[writer]:
            task.cancel()

    def close(self) -> None:
        for writer in self._passing:
            self._cut(writer)
        for writer in (*self._passing, *self._clients):
            writer.transport.abort()


@asynccontextmanager
async def stalling_proxy(url: URL, folder: Path) -> AsyncIterator[tuple[URL, StallingProxy]]:
    """`url` by way of a proxy, whose socket is in `folder`."""
    proxy = StallingProxy(url)
    server = await asyncio.start_unix_server(proxy.serve, folder / f".s.PGSQL.{PORT}")
    try:
        yield url.set(host=None, port=None, query={"host": str(folder)}), proxy
    finally:
        server.close()
        proxy.close()
