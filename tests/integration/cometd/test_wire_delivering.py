"""What comes over real sockets, and comes again, when all goes well or a response is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from consumer import QUICK, Consumer, record
from tiny_server import CHANNEL, TinyServer, running

from service.cometd import (
    Client,
    Delivery,
    Failing,
    LongPolling,
    Lost,
    Opened,
    PossibleGap,
    Resumed,
    Stopped,
)


async def test_a_held_poll_brings_an_event_at_once_and_verbatim(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        consumer = record(http, server)
        await server.holds_a_poll()
        server.publish('{"b" : 1.0e2, "b":"\\u00e9 é"}')
        await consumer.see(Delivery)
        assert consumer.raw == ['{"channel":"/v2/me/calls","data":{"b" : 1.0e2, "b":"\\u00e9 é"}}'.encode()]
        await server.holds_a_poll()
        assert server.queue == [], "acknowledged by the next connect"
        await consumer.end()
        assert server.client_id is None, "disconnected"


async def test_between_two_polls_without_news_there_is_time_for_other_things(
    http: aiohttp.ClientSession,
) -> None:
    begun, enough = asyncio.Event(), asyncio.Event()

    async def idle() -> None:
        begun.set()
        await enough.wait()

    async with running(TinyServer()) as server:
        consumer = record(http, server, idle=idle)
        async with asyncio.timeout(30):
            await begun.wait()
        server.publish("1")
        asked = len(server.headers)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(consumer.task), 0.05)
        assert (consumer.raw, len(server.headers)) == ([], asked), "no poll meanwhile"
        enough.set()
        await consumer.see(Delivery)
        await consumer.end()


async def test_the_cookie_of_a_numeric_host_comes_back_verbatim(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer(cookie='BAYEUX_BROWSER="a/b=c+"')) as server:
        consumer = record(http, server)
        await server.holds_a_poll()
        server.publish("1")
        await consumer.see(Delivery)
        await consumer.end()
        assert not [item for item in consumer.items if isinstance(item, Lost)]


async def test_agents_share_connections_but_no_cookies(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer(cookie="B=1")) as one, running(TinyServer(cookie="B=2")) as other:
        consumers = [record(http, one), record(http, other)]
        await asyncio.gather(one.holds_a_poll(), other.holds_a_poll())
        for consumer in consumers:
            await consumer.end()
        assert {h.get("Cookie") for h in one.headers} == {None, "B=1"}
        assert {h.get("Cookie") for h in other.headers} == {None, "B=2"}


async def test_a_withheld_delivery_comes_again(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        consumer = record(http, server)
        consumer.confirming = False
        await server.holds_a_poll()
        server.publish("1")
        third = await consumer.see(Delivery, 3)
        assert third.attempt == 3
        assert len(server.queue) == 1
        consumer.confirming = True
        await server.holds_a_poll()
        assert consumer.data == [1]
        await consumer.end()


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_response_cut_off_brings_nothing_but_comes_again(
    http: aiohttp.ClientSession, *, chunked: bool
) -> None:
    server = TinyServer()
    cut = 0

    async def hook(request: web.Request, message: dict[str, Any]) -> web.StreamResponse | None:
        nonlocal cut
        if cut == 2 or message["channel"] != "/meta/connect":
            return None
        whole = await server.respond([message])
        if not server.queue:
            return whole
        cut += 1
        assert isinstance(whole.body, bytes)
        response = web.StreamResponse(headers={} if chunked else {"Content-Length": str(len(whole.body))})
        if chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(whole.body[:-3])
        assert request.transport is not None
        request.transport.close()
        return response

    server.hook = hook
    async with running(server):
        consumer = record(http, server)
        await server.holds_a_poll()
        server.publish("1")
        await consumer.see(Delivery)
        await server.holds_a_poll()
        await consumer.end()
        assert cut == 2
        assert consumer.data == [1]
        assert [type(item) for item in consumer.items] == [Opened, Failing, Delivery, Stopped]


async def test_without_acknowledgement_a_lost_response_is_a_possible_gap(http: aiohttp.ClientSession) -> None:
    server = TinyServer(ack=False)

    async def lose(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        server.hook = None
        await server.respond([message])
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with running(server):
        consumer = record(http, server)
        await server.holds_a_poll()
        server.hook = lose
        server.publish("1")
        first = await consumer.see(Delivery)
        await server.holds_a_poll()
        server.publish("2")
        gap = await consumer.see(PossibleGap)
        resumed = await consumer.see(Resumed)
        assert first.asked_at == gap.since == resumed.since <= gap.at <= resumed.at
        await server.holds_a_poll()
        server.publish("3")
        await consumer.see(Delivery, 2)
        await consumer.end()
        assert consumer.data == [1, 3], "the second was written into a dead connection"


async def test_an_unknown_session_is_lost_and_made_anew(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        consumer = record(http, server)
        opened = await consumer.see(Opened)
        await server.holds_a_poll()
        server.client_id = None  # a restart
        server.publish("1")
        lost = await consumer.see(Lost)
        again = await consumer.see(Opened, 2)
        assert opened.at <= lost.since <= lost.at <= again.at
        assert again.client_id != opened.client_id
        await server.holds_a_poll()
        server.publish("2")
        await consumer.see(Delivery)
        await consumer.end()


async def test_the_purpose_can_be_told_by_the_path(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        transport = LongPolling(http, server.url, append_purpose=True)
        consumer = Consumer(Client(transport, [CHANNEL], timing=QUICK))
        await server.holds_a_poll()
        await consumer.end()
        assert server.paths[:3] == ["/cometd/handshake", "/cometd/subscribe", "/cometd/connect"]
        assert server.paths[-1] == "/cometd/disconnect"
