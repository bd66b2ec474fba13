"""A session over WebSocket."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from consumer import QUICK, Consumer
from tiny_server import CHANNEL, TinyServer, running

from service.cometd import (
    Client,
    Cookies,
    Delivery,
    Failing,
    Opened,
    PossibleGap,
    Purpose,
    Refused,
    Resumed,
    Stopped,
    WebSocket,
)
from service.errors import TransportFailed


def record_websocket(http: aiohttp.ClientSession, server: TinyServer, **options: Any) -> Consumer:
    return Consumer(Client(WebSocket(http, server.url), [CHANNEL], timing=QUICK, **options))


@pytest.mark.parametrize("ack", [True, False])
async def test_a_websocket_carries_a_session(http: aiohttp.ClientSession, *, ack: bool) -> None:
    async with running(TinyServer(ack=ack)) as server:
        consumer = record_websocket(http, server)
        for n in range(1, 4):
            await server.holds_a_poll()
            server.publish(str(n))
            await consumer.see(Delivery, n)
        await server.holds_a_poll()
        await consumer.end()
        assert consumer.data == [1, 2, 3]
        assert server.client_id is None
        assert len([headers for headers in server.headers if "Upgrade" in headers]) == 1
        await server.has_lost_a_client()


async def test_a_frame_that_comes_unasked_is_delivered_at_once(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer(ack=False)) as server:
        consumer = record_websocket(http, server)
        await server.holds_a_poll()
        (connection,) = server.sockets
        await connection.send_str('[{"channel":"/v2/me/calls","data":1}]')
        await consumer.see(Delivery)
        assert server.polling.is_set(), "the connect is still held"
        await consumer.end()
        assert consumer.data == [1]


@pytest.mark.parametrize("ack", [True, False])
async def test_a_websocket_that_breaks_is_opened_again_for_the_same_session(
    http: aiohttp.ClientSession, *, ack: bool
) -> None:
    async with running(TinyServer(ack=ack, cookie="B=1")) as server:
        consumer = record_websocket(http, server)
        await server.holds_a_poll()
        (connection,) = server.sockets
        assert connection._req is not None
        assert connection._req.transport is not None
        connection._req.transport.abort()
        await server.has_lost_a_client()
        server.publish("1")
        await consumer.see(Delivery)
        await consumer.end()
        assert len(server.sent("/meta/handshake")) == 1
        kinds = [type(item) for item in consumer.items]
        told = [Failing] if ack else [PossibleGap, Failing, Resumed]
        assert kinds == [Opened, *told, Delivery, Stopped]
        upgrades = [headers.get("Cookie") for headers in server.headers if "Upgrade" in headers]
        assert upgrades == [None, "B=1"]


async def test_a_refused_upgrade_is_a_refusal(http: aiohttp.ClientSession) -> None:
    refusing = True

    def refuse(request: web.Request) -> web.Response | None:
        return web.Response(status=403) if refusing else None

    async with running(TinyServer(upgrade_hook=refuse)) as server:
        consumer = record_websocket(http, server)
        refused = await consumer.see(Refused)
        assert refused.status == 403
        refusing = False
        await consumer.see(Opened)
        await consumer.end()


async def test_a_websocket_without_an_answer_is_cut(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        transport = WebSocket(http, server.url, cookies=Cookies())
        hello = json.dumps([{"id": "1", "channel": "/meta/handshake"}]).encode()
        assert b"clientId" in await transport.send(hello, Purpose.HANDSHAKE, 5.0)
        with pytest.raises(TransportFailed, match="time"):
            await transport.receive(0.02)
        await server.has_lost_a_client()
        with pytest.raises(TransportFailed, match="closed"):
            await transport.receive(0.02)
        await transport.close()
