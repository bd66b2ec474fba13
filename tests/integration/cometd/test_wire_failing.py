"""Requests that fail on the wire: what is told of them, and that none is sent twice."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from certificates import certificate
from consumer import Consumer
from tiny_server import CHANNEL, TinyServer, running

from service.cometd import (
    Client,
    Failing,
    LongPolling,
    Purpose,
    longpolling,
)
from service.errors import TransportFailed


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
            async with asyncio.timeout(15):
                await LongPolling(http, server.url).send(b"[{}]", Purpose.CONNECT, 0.5)
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
            async with asyncio.timeout(15):
                await LongPolling(http, server.url).send(b"[{}]", Purpose.CONNECT, 0.5)
        assert failed.value.sent
        async with asyncio.timeout(30):
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


class Longest(random.Random):
    """Draws the longest pause."""

    def uniform(self, _: float, b: float) -> float:
        return b


@pytest.mark.parametrize("trouble", ["certificate", "no such host", "nobody listens"])
async def test_a_server_that_cannot_be_reached_is_tried_ever_more_slowly(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trouble: str
) -> None:
    """The pauses pass at once, on a clock of their own; each try is made on a real socket."""
    now, tries, pauses = 0.0, 0, list[float]()
    post = http.post

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal tries
        tries += 1
        return post(*given, **more)

    async def pause(client: Client, seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)
        if len(pauses) == 12:
            client.close()

    def not_found(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(http, "post", counted)
    monkeypatch.setattr(Client, "_pause", pause)
    monkeypatch.setattr(Client, "_now", lambda _: now)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(tmp_path))
    async with running(TinyServer(), tls) as server:
        url = server.url
        if trouble == "no such host":
            url = "http://gws.example/cometd"
            monkeypatch.setattr(socket, "getaddrinfo", not_found)
        elif trouble == "nobody listens":
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                url = f"http://127.0.0.1:{free.getsockname()[1]}/cometd"
        consumer = Consumer(Client(LongPolling(http, url), [CHANNEL], rng=Longest()))
        async with asyncio.timeout(30):
            await consumer.task
        assert server.seen == []
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert tries == 1 + len(pauses)  # the second follows the first at once, and the last pause was cut short
    [failing, _] = consumer.items
    assert isinstance(failing, Failing), "told once"
    if trouble == "certificate":
        assert "certificate" in failing.cause
