"""WebSockets through the tap: frames as they came, and what CometD says in them recorded first."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from raw_peers import RawServer, plain_tap, raw_client
from tapping import numbered, tapped

from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator

PATH = "/api/v2/notifications"


@asynccontextmanager
async def socket_server(talk: Callable[[web.WebSocketResponse], Awaitable[None]]) -> AsyncIterator[str]:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await talk(socket)
        return socket

    app = web.Application()
    app.router.add_get("/{any:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def reply(asked: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"channel": asked["channel"], "id": asked["id"], "successful": True, **more}


async def cometd(socket: web.WebSocketResponse) -> None:
    """A CometD server that has two events for the first connect and one more for the second."""
    batch = 0
    async for message in socket:
        [asked] = json.loads(message.data)
        match asked["channel"]:
            case "/meta/handshake":
                await socket.send_str(json.dumps([reply(asked, clientId="secret-client", ext={"ack": True})]))
            case "/meta/subscribe":
                await socket.send_str(json.dumps([reply(asked, subscription=asked["subscription"])]))
            case "/meta/connect":
                known = 2 if asked["ext"]["ack"] else 0
                batch += 1
                events = [numbered(number).decode() for number in range(known, 3 if batch > 1 else 2)]
                answer = json.dumps(reply(asked, ext={"ack": batch}))
                await socket.send_str(f"[{','.join([*events, answer])}]")


@pytest.mark.parametrize("compress", [0, 15])
async def test_what_cometd_says_in_frames_is_recorded_once(
    database: Database, log: EventLog, compress: int
) -> None:
    async with (
        Simulator(seed=1) as simulator,
        socket_server(cometd) as url,
        tapped(database, log, simulator, url=url) as site,
        aiohttp.ClientSession() as http,
        http.ws_connect(
            site.tap.url + PATH,
            headers={"Authorization": aiohttp.encode_basic_auth("15000", "x")},
            compress=compress,
        ) as socket,
    ):
        count = 0

        async def say(channel: str, **more: Any) -> list[Any]:
            nonlocal count
            count += 1
            message = {"channel": channel, "id": str(count), "clientId": "secret-client", **more}
            await socket.send_str(json.dumps([message]))
            told: list[Any] = json.loads(await socket.receive_str(timeout=20))
            return told

        await say("/meta/handshake", version="1.0")
        await say("/meta/subscribe", subscription="/v2/me/calls")
        assert len(await say("/meta/connect", ext={"ack": 0})) == 3
        assert len(await say("/meta/connect", ext={"ack": 0})) == 4
        assert await site.bodies() == [numbered(number) for number in range(3)]
        [opened] = await site.events("SessionOpened")
        assert (opened.agent, opened.ack) == ("15000", True)
        everything = b"".join(one.payload for one in await log.read(limit=1000))
        assert b"secret-client" not in everything


@pytest.mark.parametrize("compress", [0, 15])
async def test_messages_of_every_size_pass_both_ways(
    database: Database, log: EventLog, compress: int
) -> None:
    async def echo(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            await socket.send_bytes(message.data)

    async with (
        Simulator(seed=1) as simulator,
        socket_server(echo) as url,
        tapped(database, log, simulator, url=url) as site,
        aiohttp.ClientSession() as http,
    ):
        for path in ("/elsewhere", PATH):
            async with http.ws_connect(
                site.tap.url + path, compress=compress, max_msg_size=1 << 23
            ) as socket:
                for size in (0, 1, 125, 126, 65_535, 65_536, 1_000_000):
                    await socket.send_bytes(bytes(size))
                    assert await socket.receive_bytes(timeout=20) == bytes(size)
                await socket.ping()


async def test_frames_are_the_same_bytes_and_what_the_client_sent_early_is_not_lost() -> None:
    head = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    ping = b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"  # RFC 6455 §5.7, masked
    hello = b"\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f"  # the same, fragmented

    async def script(server: RawServer, reader: Any, writer: Any) -> None:
        await server.read_head(reader)
        writer.write(head + hello)
        await server.read(reader, len(ping))
        writer.close()

    asked = (
        b"GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with (
        RawServer(script=script) as server,
        plain_tap(server.url) as tap,
        raw_client(tap.url) as client,
    ):
        assert await client.ask(asked + ping, len(head + hello)) == head + hello
        assert await client.rest() == b""
        assert server.received.endswith(b"\r\n\r\n" + ping)


async def test_an_upgrade_that_is_refused_leaves_the_connection_as_it_was() -> None:
    asked = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    async with RawServer() as server, plain_tap(server.url) as tap, raw_client(tap.url) as client:
        for _ in range(2):
            assert await client.ask(asked, len(server.answer)) == server.answer
        assert server.connections == 1
