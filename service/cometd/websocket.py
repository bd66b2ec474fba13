"""The WebSocket transport: the same messages as over long polling, in text frames.

A frame may hold several messages, and those of different origin mix: events come unasked between the replies.
The connection is opened with the first request and again after each failure. Whether a session outlives its
connection is for the server to say (with CometD, option ``requireHandshakePerConnection``); if it does not,
the next connect is answered 402.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from service.cometd.actions import Purpose
from service.cometd.cookies import Cookies
from service.cometd.longpolling import CONNECT_TIMEOUT
from service.cometd.network import failures_told
from service.cometd.transport import Anonymous, Credentials
from service.errors import TransportFailed

_CLOSE_TIMEOUT = 2.0
"""Seconds for the server to agree to the end of a connection."""


class WebSocket:
    """A WebSocket for one agent.

    `http`: from `shared_http`. `url`: with the scheme ``ws`` or ``wss`` (``http`` and ``https`` do as well).
    `max_frame`: the largest frame accepted, in bytes.
    """

    connection_type = "websocket"
    streaming = True

    __slots__ = ("_credentials", "_http", "_max_frame", "_socket", "_url", "cookies")

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        *,
        cookies: Cookies | None = None,
        credentials: Credentials | None = None,
        max_frame: int = 64 * 1024 * 1024,
    ) -> None:
        self._http = http
        self._url = URL(url)
        self._credentials = credentials or Anonymous()
        self._max_frame = max_frame
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.cookies = Cookies() if cookies is None else cookies

    async def send(self, body: bytes, purpose: Purpose, wait: float) -> bytes:  # noqa: ARG002 - the frame says it
        try:
            with failures_told():
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    socket = self._socket or await self._open()
                    await socket.send_frame(body, aiohttp.WSMsgType.TEXT)
        except BaseException:
            self._drop()
            raise
        return await self.receive(wait)

    async def receive(self, wait: float) -> bytes:
        socket = self._socket
        if socket is None:
            raise TransportFailed("the connection is closed")
        try:
            with failures_told():
                async with asyncio.timeout(wait):
                    frame = await socket.receive()
        except TransportFailed:
            self._drop()
            raise
        if frame.type is aiohttp.WSMsgType.TEXT or frame.type is aiohttp.WSMsgType.BINARY:
            data = frame.data
            return data.encode() if isinstance(data, str) else bytes(data)
        self._drop()
        raise TransportFailed(f"the connection ended with code {socket.close_code}")

    async def close(self) -> None:
        """Close the connection, and the agent's only, in good order."""
        socket, self._socket = self._socket, None
        if socket is not None:
            with failures_told():
                await socket.close()

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        headers = dict(self._credentials.headers())
        cookie = self.cookies.header(self._url)
        if cookie is not None:
            headers["Cookie"] = cookie
        try:
            socket = await self._http.ws_connect(
                self._url,
                headers=headers,
                max_msg_size=self._max_frame,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT),
            )
        except aiohttp.WSServerHandshakeError as error:
            self._learn(error.headers)
            raise TransportFailed(f"HTTP {error.status}", status=error.status, sent=False) from None
        self._socket = socket
        self._learn(_response(socket).headers)
        return socket

    def _learn(self, headers: Mapping[str, str] | None) -> None:
        if headers is not None:
            self.cookies.store(self._url, CIMultiDict(headers).getall("Set-Cookie", ()))
            self._credentials.observe(headers)

    def _drop(self) -> None:
        """Cut the connection, so that nothing that was given up can still come through it."""
        socket, self._socket = self._socket, None
        if socket is not None:
            _response(socket).close()


def _response(socket: aiohttp.ClientWebSocketResponse) -> aiohttp.ClientResponse:
    """Return the response that opened the connection: it has the headers, and can cut without a farewell."""
    return socket._response  # noqa: SLF001 - aiohttp has no public way to either
