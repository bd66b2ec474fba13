"""The client on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from certificates import certificate
from tiny_server import CHANNEL, TinyServer, running

from service.cometd import (
    Client,
    Cookies,
    Delivery,
    Evidence,
    Failing,
    Item,
    LongPolling,
    Lost,
    Opened,
    PossibleGap,
    Purpose,
    Refused,
    Resumed,
    Stopped,
    Timing,
    WebSocket,
    longpolling,
    shared_http,
)
from service.errors import CalltrailError, TransportFailed

QUICK = Timing(allowance=5.0, reply=5.0, retry_cap=0.05, refused=0.02, refused_cap=0.02, pace=(0.01, 0.02))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with shared_http() as session:
        yield session


class Consumer:
    """Runs a client in a task, confirms what comes (unless told not to) and lets tests wait for facts."""

    def __init__(self, client: Client, *, confirming: bool = True) -> None:
        self.client = client
        self.confirming = confirming
        self.items: list[Item] = []
        self.raw: list[bytes] = []
        self._news = asyncio.Condition()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for item in self.client.deliveries():
            self.items.append(item)
            if isinstance(item, Delivery) and self.confirming:
                self.raw += [message.raw for message in item.messages]
                item.confirm()
            async with self._news:
                self._news.notify_all()

    async def see(self, kind: type, count: int = 1) -> Any:
        """Wait for the n-th item of a kind."""
        async with asyncio.timeout(15), self._news:
            while len(found := [item for item in self.items if isinstance(item, kind)]) < count:
                await self._news.wait()
        return found[count - 1]

    async def end(self, *, keep_session: bool = False) -> Stopped:
        self.client.close(keep_session=keep_session)
        async with asyncio.timeout(15):
            await self.task
        stopped = self.items[-1]
        assert isinstance(stopped, Stopped)
        return stopped

    @property
    def data(self) -> list[Any]:
        return [json.loads(raw)["data"] for raw in self.raw]


def record(http: aiohttp.ClientSession, server: TinyServer, **options: Any) -> Consumer:
    return Consumer(Client(LongPolling(http, server.url), [CHANNEL], timing=QUICK, **options))


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
        assert first.at == gap.since == resumed.since <= gap.at <= resumed.at
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


class Csrf:
    """Basic credentials and a token that changes with every response."""

    def __init__(self) -> None:
        self.token = ""

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": "Basic c2VjcmV0", "X-CSRF-TOKEN": self.token}

    def observe(self, headers: Mapping[str, str]) -> None:
        self.token = headers.get("x-csrf-token", self.token)


async def test_credentials_see_every_response_and_are_renewed_before_a_handshake(
    http: aiohttp.ClientSession,
) -> None:
    server = TinyServer()
    csrf = Csrf()
    tokens = ["start"]
    prepared = 0
    expired = False

    async def prepare() -> None:
        nonlocal prepared
        prepared += 1
        csrf.token = tokens[-1]

    async def hook(request: web.Request, message: dict[str, Any]) -> web.StreamResponse | None:
        nonlocal expired
        if expired:
            expired = False
            tokens.append("of a new HTTP session")
        if request.headers["X-CSRF-TOKEN"] != tokens[-1]:
            return web.Response(status=403)
        answer = await server.respond([message])
        tokens.append(f"token{len(tokens)}")
        answer.headers["X-CSRF-TOKEN"] = tokens[-1]
        return answer

    server.hook = hook
    async with running(server):
        client = Client(
            LongPolling(http, server.url, credentials=csrf), [CHANNEL], timing=QUICK, prepare=prepare
        )
        consumer = Consumer(client)
        for n in range(1, 4):
            await server.holds_a_poll()
            server.publish(str(n))
            await consumer.see(Delivery, n)
        await server.holds_a_poll()
        expired = True
        server.publish("4")
        await consumer.see(Lost)
        await consumer.see(Opened, 2)
        assert prepared == 2
        assert not [item for item in consumer.items if isinstance(item, Refused)]
        await consumer.end()


async def test_a_refusal_is_told_and_cookies_are_forgotten(http: aiohttp.ClientSession) -> None:
    server = TinyServer()
    refusing = True

    async def hook(request: web.Request, message: dict[str, Any]) -> web.StreamResponse | None:
        return web.Response(status=401, headers={"Set-Cookie": "stale=1; Path=/"}) if refusing else None

    server.hook = hook
    async with running(server):
        consumer = record(http, server)
        refused = await consumer.see(Refused, 2)
        assert refused.status == 401
        refusing = False
        await consumer.see(Opened)
        await consumer.end()
        assert not [headers for headers in server.headers if "Cookie" in headers]


async def test_a_preparation_that_fails_is_a_failed_handshake(http: aiohttp.ClientSession) -> None:
    failures: list[Exception] = [CalltrailError("GWS is away"), TransportFailed("HTTP 403", status=403)]

    async def prepare() -> None:
        if failures:
            raise failures.pop(0)

    async with running(TinyServer()) as server:
        consumer = record(http, server, prepare=prepare)
        await consumer.see(Opened)
        assert [type(item) for item in consumer.items] == [Failing, Refused, Opened]
        await consumer.end()


async def test_a_drip_is_not_waited_for_for_ever(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(longpolling, "BODY_TIMEOUT", 0.05)
    server = TinyServer()
    gone = asyncio.Event()

    async def drip(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    server.hook = drip
    async with running(server):
        with pytest.raises(TransportFailed, match="time"):
            async with asyncio.timeout(10):
                await LongPolling(http, server.url).send(b"[{}]", Purpose.CONNECT, 0.1)
        async with asyncio.timeout(15):
            await gone.wait()


async def test_a_late_response_is_never_used_and_its_connection_is_closed(
    http: aiohttp.ClientSession,
) -> None:
    server = TinyServer()
    gone = asyncio.Event()

    async def late(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError("cancelled")

    server.hook = late
    async with running(server):
        with pytest.raises(TransportFailed, match="time") as failed:
            async with asyncio.timeout(10):
                await LongPolling(http, server.url).send(b"[{}]", Purpose.CONNECT, 0.05)
        assert failed.value.sent
        async with asyncio.timeout(15):
            await gone.wait()


async def test_a_post_is_sent_once_even_on_a_connection_that_the_server_drops(
    http: aiohttp.ClientSession,
) -> None:
    server = TinyServer()
    came = 0

    async def hook(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        nonlocal came
        came += 1
        if came == 2:
            assert request.transport is not None
            request.transport.close()
        return web.Response(text="[]")

    server.hook = hook
    async with running(server):
        transport = LongPolling(http, server.url)
        assert await transport.send(b"[{}]", Purpose.CONNECT, 5.0) == b"[]"
        with pytest.raises(TransportFailed) as failed:
            await transport.send(b"[{}]", Purpose.CONNECT, 5.0)
        assert failed.value.sent
        assert came == 2


@pytest.mark.parametrize("status", [302, 400, 404, 503])
async def test_a_status_is_told_with_its_body(http: aiohttp.ClientSession, status: int) -> None:
    server = TinyServer()

    async def hook(request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=status, text="why", headers={"Location": server.url})

    server.hook = hook
    async with running(server):
        with pytest.raises(TransportFailed) as failed:
            await LongPolling(http, server.url).send(b"[{}]", Purpose.CONNECT, 5.0)
        assert (failed.value.status, failed.value.body, failed.value.sent) == (status, b"why", True)
        assert len(server.paths) == 1, "redirects are not followed"


async def test_no_connection_means_nothing_was_sent(http: aiohttp.ClientSession) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/cometd"
        with pytest.raises(TransportFailed) as failed:
            await LongPolling(http, url).send(b"[{}]", Purpose.CONNECT, 5.0)
    assert not failed.value.sent


async def test_a_log_in_page_is_evidence(http: aiohttp.ClientSession) -> None:
    server = TinyServer()
    page = True

    async def hook(request: web.Request, message: dict[str, Any]) -> web.StreamResponse | None:
        return web.Response(text="<html>log in</html>") if page else None

    server.hook = hook
    async with running(server):
        consumer = record(http, server)
        evidence = await consumer.see(Evidence)
        assert evidence.body == b"<html>log in</html>"
        page = False
        await consumer.see(Opened)
        await consumer.end()


@pytest.mark.parametrize("ack", [True, False])
async def test_a_successor_goes_on_where_its_predecessor_left_off(
    http: aiohttp.ClientSession, *, ack: bool
) -> None:
    async with running(TinyServer(ack=ack, cookie="B=1")) as server:
        first = record(http, server)
        await server.holds_a_poll()
        server.publish("1")
        await first.see(Delivery)
        await server.holds_a_poll()
        stopped = await first.end(keep_session=True)
        assert stopped.kept
        state = first.client.resume_state
        assert state is not None
        server.publish("2")
        second = record(http, server, resume=state, acked=first.client.acked)
        await second.see(Delivery)
        await server.holds_a_poll()
        await second.end()
        assert first.data + second.data == [1, 2]
        assert [type(item) for item in second.items] == [Resumed, Delivery, Stopped]
        assert len(server.sent("/meta/handshake")) == 1


async def test_closing_loses_nothing_that_the_held_poll_carries(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer(ack=False)) as server:
        consumer = record(http, server)
        await server.holds_a_poll()
        held = server.held
        assert held is not None
        server.publish("1")
        consumer.client.close()
        await consumer.end()
        assert consumer.data == [1]
        assert server.client_id is None


async def test_a_consumer_that_goes_away_leaves_nothing_behind(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        consumer = record(http, server)
        await server.holds_a_poll()
        consumer.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer.task
        await server.has_lost_a_client()
        names = [repr(task) for task in asyncio.all_tasks() if "LongPolling" in repr(task)]
        assert not names


async def test_the_purpose_can_be_told_by_the_path(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        transport = LongPolling(http, server.url, append_purpose=True)
        consumer = Consumer(Client(transport, [CHANNEL], timing=QUICK))
        await server.holds_a_poll()
        await consumer.end()
        assert server.paths[:3] == ["/cometd/handshake", "/cometd/subscribe", "/cometd/connect"]
        assert server.paths[-1] == "/cometd/disconnect"


async def test_an_iterator_is_there_once(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        consumer = record(http, server)
        await consumer.see(Opened)
        with pytest.raises(RuntimeError, match="before"):
            await anext(aiter(consumer.client.deliveries()))
        await consumer.end()


async def test_a_server_that_is_not_who_it_says_gets_nothing(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    pem = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    async with running(TinyServer(), tls) as server:
        with pytest.raises(TransportFailed, match="certificate") as failed:
            await LongPolling(http, server.url).send(b"[{}]", Purpose.CONNECT, 5.0)
        assert not failed.value.sent
        assert server.seen == []
        trusting = ssl.create_default_context(cafile=str(pem))
        async with shared_http(trusting) as trusted:
            consumer = record(trusted, server)
            await consumer.see(Opened)
            await consumer.end()


# WebSocket


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
