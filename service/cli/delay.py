"""A database far away: a relay in front of Postgres that holds back whatever passes, in each direction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.engine import URL

from service.postgres import connect_arguments

CHUNK = 1 << 16


@asynccontextmanager
async def delayed(url: URL, round_trip_s: float) -> AsyncIterator[URL]:
    """The database of `url`, behind a relay that adds `round_trip_s` to every round trip."""
    loop = asyncio.get_running_loop()
    arguments = connect_arguments(url)
    host, port = str(arguments.get("host", "localhost")), int(arguments.get("port", 5432))

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass everything on, each piece after half a round trip; those behind it do not wait longer."""
        on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await on_its_way.get()
                await asyncio.sleep(due - loop.time())
                if not data:
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                on_its_way.put_nowait((loop.time() + round_trip_s / 2, data))
        on_its_way.put_nowait((loop.time() + round_trip_s / 2, b""))
        with suppress(ConnectionError):
            await delivering
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there = await asyncio.open_connection(host, port)
        await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))

    server = await asyncio.start_server(relay, "127.0.0.1")
    try:
        relayed = url.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        yield relayed.set(query={"sslmode": "disable"})
    finally:
        server.close()
