"""Requests that fail on the wire: what is told of them, and that none is sent twice."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tiny_server import TinyServer, running

from service.cometd import (
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
