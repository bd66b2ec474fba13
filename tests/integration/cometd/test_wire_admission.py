"""Credentials, and servers that do not let us in."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from certificates import certificate
from consumer import QUICK, Consumer, record
from tiny_server import CHANNEL, TinyServer, running

from service.cometd import (
    Client,
    Delivery,
    Evidence,
    Failing,
    LongPolling,
    Lost,
    Opened,
    PossibleGap,
    Purpose,
    Refused,
    shared_http,
)
from service.errors import CalltrailError, TransportFailed


class Csrf:
    """Basic credentials and a token that changes with every response."""

    def __init__(self) -> None:
        self.token = ""

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": "Basic c2VjcmV0", "X-CSRF-TOKEN": self.token}

    def observe(self, headers: Mapping[str, str]) -> None:
        self.token = headers.get("x-csrf-token", self.token)


@pytest.mark.parametrize("known", [True, False])
async def test_credentials_see_every_response_and_are_renewed_when_they_are_refused(
    http: aiohttp.ClientSession, *, known: bool
) -> None:
    """When the log-in is over the session goes on with the next one, if the server knows it still."""
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
            if not known:
                server.client_id = None
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
        await consumer.see(*((Delivery, 4) if known else (Opened, 2)))
        await server.holds_a_poll()
        server.publish("5")
        await consumer.see(Delivery, 5)
        assert prepared == (2 if known else 3)
        assert bool([item for item in consumer.items if isinstance(item, Lost)]) is not known
        assert not [item for item in consumer.items if isinstance(item, Refused | PossibleGap)]
        await consumer.end()


async def test_a_poll_that_is_refused_again_with_new_credentials_is_the_end_of_the_session(
    http: aiohttp.ClientSession,
) -> None:
    server = TinyServer()
    refusing = False
    prepared = 0

    async def prepare() -> None:
        nonlocal prepared
        prepared += 1

    async def hook(request: web.Request, message: dict[str, Any]) -> web.StreamResponse | None:
        refused = refusing and message["channel"] == "/meta/connect"
        return web.Response(status=403) if refused else None

    server.hook = hook
    async with running(server):
        client = Client(LongPolling(http, server.url), [CHANNEL], timing=QUICK, prepare=prepare)
        consumer = Consumer(client)
        await server.holds_a_poll()
        refusing = True
        server.publish("1")
        lost = await consumer.see(Lost)
        assert lost.cause == "HTTP 403"
        assert prepared == 2
        refusing = False
        await consumer.see(Opened, 2)
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
