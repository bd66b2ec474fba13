"""The long-polling transport: one POST per request body, over a shared pool of connections.

What the defaults of HTTP clients get wrong for this protocol is set here: no limit on connections (each
agent holds one), no overall time-out by default (a poll is held for long), a read time-out always, no
redirects (they lead to log-in pages), a cookie jar per agent that also takes cookies from hosts given as an
IP address. A POST is never tried again: aiohttp does that for idempotent methods only.
"""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus

import aiohttp
from yarl import URL

from service.cometd.actions import Purpose
from service.cometd.cookies import Cookies
from service.cometd.network import failures_told
from service.cometd.transport import Anonymous, Credentials
from service.errors import TransportFailed

CONNECT_TIMEOUT = 10.0
"""Seconds for name look-up, TCP and TLS."""

BODY_TIMEOUT = 30.0
"""Seconds within which a response must have arrived beyond the time allowed for its beginning."""


def shared_http(tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """Open the HTTP session that all agents share. The caller closes it after the last of them.

    `tls`: the context for `https` servers with certificates of their own; None verifies against the system's.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=True if tls is None else tls),
        cookie_jar=aiohttp.DummyCookieJar(),  # the cookies are each agent's own
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
    )


class LongPolling:
    """Long polling for one agent.

    `http`: from `shared_http`. `append_purpose`: add ``/handshake``, ``/connect`` and so on to the URL, as
    the JavaScript client does; some load balancers route by it.
    """

    connection_type = "long-polling"
    streaming = False

    __slots__ = ("_append_purpose", "_credentials", "_http", "_url", "cookies")

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        *,
        cookies: Cookies | None = None,
        credentials: Credentials | None = None,
        append_purpose: bool = False,
    ) -> None:
        self._http = http
        self._url = URL(url)
        self._credentials = credentials or Anonymous()
        self._append_purpose = append_purpose
        self.cookies = Cookies() if cookies is None else cookies

    async def send(self, body: bytes, purpose: Purpose, wait: float) -> bytes:
        url = self._url / purpose if self._append_purpose else self._url
        headers = {"Content-Type": "application/json;charset=UTF-8", **self._credentials.headers()}
        cookie = self.cookies.header(url)
        if cookie is not None:
            headers["Cookie"] = cookie
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=wait)
        with failures_told():
            async with (
                asyncio.timeout(wait + BODY_TIMEOUT),
                self._http.post(
                    url, data=body, headers=headers, timeout=limits, allow_redirects=False
                ) as response,
            ):
                self.cookies.store(url, response.headers.getall("Set-Cookie", ()))
                self._credentials.observe(response.headers)
                answer = await response.read()
        if response.status != HTTPStatus.OK:
            raise TransportFailed(f"HTTP {response.status}", status=response.status, body=answer)
        return answer

    async def receive(self, wait: float) -> bytes:  # noqa: ARG002 - it would be waited for in vain
        raise TransportFailed("nothing comes unasked over long polling", sent=False)

    async def close(self) -> None:
        """Nothing is held between two requests."""
