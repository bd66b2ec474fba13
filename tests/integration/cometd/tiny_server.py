"""A small Bayeux server on a real socket, for one session at a time, with a hook in front of every answer."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

CHANNEL = "/v2/me/calls"

Hook = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse | None]]


@dataclass
class TinyServer:
    """`queue` holds what is not acknowledged, as (batch, text); `seen` every message that came."""

    ack: bool = True
    timeout: int = 10_000
    cookie: str | None = None
    hook: Hook | None = None
    upgrade_hook: Callable[[web.Request], web.Response | None] | None = None
    url: str = ""
    queue: list[tuple[int, str]] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    client_id: str | None = None
    batch: int = 1
    held: asyncio.Future[str] | None = None
    polling: asyncio.Event = field(default_factory=asyncio.Event)
    broken_off: asyncio.Event = field(default_factory=asyncio.Event)
    sockets: set[web.WebSocketResponse] = field(default_factory=set)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def holds_a_poll(self) -> None:
        """Wait until a connect is held."""
        async with asyncio.timeout(30):
            await self.polling.wait()

    async def has_lost_a_client(self) -> None:
        """Wait until a connection broke off."""
        async with asyncio.timeout(30):
            await self.broken_off.wait()

    def publish(self, text: str) -> None:
        self.queue.append((self.batch, f'{{"channel":"{CHANNEL}","data":{text}}}'))
        if self.held is not None and not self.held.done():
            self.held.set_result("events")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        messages = await request.json()
        self.seen += messages
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        if self.hook is not None:
            answer = await self.hook(request, messages[0])
            if answer is not None:
                return answer
        try:
            return await self.respond(
                messages, stranger=bool(self.cookie) and self.cookie != request.headers.get("Cookie")
            )
        except asyncio.CancelledError:
            self.broken_off.set()
            raise

    async def respond(self, messages: list[dict[str, Any]], *, stranger: bool = False) -> web.Response:
        texts = await self.answer(messages, stranger=stranger)
        if texts is None:
            return web.Response(status=500)
        response = web.Response(text=f"[{','.join(texts)}]", content_type="application/json")
        if self.cookie is not None and messages[0]["channel"] == "/meta/handshake":
            response.headers.add("Set-Cookie", f"{self.cookie}; Path=/; HttpOnly")
        return response

    async def answer(self, messages: list[dict[str, Any]], *, stranger: bool = False) -> list[str] | None:
        """Return the elements of the response; None for a poll that was superseded."""
        texts: list[str] = []
        for message in messages:
            reply: dict[str, Any] = {"id": message["id"], "channel": message["channel"], "successful": True}
            if message["channel"] == "/meta/handshake":
                self.client_id = f"c{next(self._ids)}"
                self.queue, self.batch = [], 1
                reply["clientId"] = self.client_id
                reply["advice"] = {"reconnect": "retry", "interval": 0, "timeout": self.timeout}
                reply["ext"] = {"ack": True} if self.ack else {}
            elif message["clientId"] != self.client_id or stranger:
                reply |= {"successful": False, "error": "402::session_unknown"}
            elif message["channel"] == "/meta/disconnect":
                self.client_id = None
            elif message["channel"] == "/meta/connect":
                if not await self.hold(message):
                    return None
                if self.ack:
                    reply["ext"] = {"ack": self.batch}
                    self.batch += 1
                texts += [text for _, text in self.queue]
                if not self.ack:
                    self.queue.clear()
            texts.append(json.dumps(reply))
        return texts

    async def hold(self, message: dict[str, Any]) -> bool:
        if self.held is not None and not self.held.done():
            self.held.set_result("superseded")
        if self.ack:
            self.queue = [item for item in self.queue if item[0] > message["ext"]["ack"]]
        if self.queue or message.get("advice", {}).get("timeout") == 0:
            return True
        self.held = asyncio.get_running_loop().create_future()
        self.polling.set()
        try:
            async with asyncio.timeout(self.timeout / 1000):
                return await self.held != "superseded"
        except TimeoutError:
            return True
        finally:
            self.polling.clear()

    async def handle_websocket(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        if self.upgrade_hook is not None:
            refusal = self.upgrade_hook(request)
            if refusal is not None:
                return refusal
        socket = web.WebSocketResponse(max_msg_size=0)
        if self.cookie is not None:
            socket.headers.add("Set-Cookie", f"{self.cookie}; Path=/")
        await socket.prepare(request)
        self.sockets.add(socket)
        answers = set()

        async def answer(messages: list[dict[str, Any]]) -> None:
            texts = await self.answer(messages)
            if texts is not None and not socket.closed:
                await socket.send_str(f"[{','.join(texts)}]")

        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    messages = json.loads(frame.data)
                    self.seen += messages
                    answers.add(asyncio.create_task(answer(messages)))
        finally:
            for task in answers:
                task.cancel()
            self.sockets.discard(socket)
            self.broken_off.set()
        return socket

    def sent(self, channel: str) -> list[dict[str, Any]]:
        return [message for message in self.seen if message["channel"] == channel]


@asynccontextmanager
async def running(server: TinyServer, tls: ssl.SSLContext | None = None) -> AsyncIterator[TinyServer]:
    app = web.Application()
    app.router.add_post("/cometd{rest:.*}", server.handle)
    app.router.add_get("/cometd", server.handle_websocket)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/cometd"
    try:
        yield server
    finally:
        await runner.cleanup()
