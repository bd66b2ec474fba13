"""The REST client: one per agent, with the agent's credentials, cookies and CSRF token.

Basic credentials go with every request (page InterpretingaResponse). Cookies are kept: GWS wants its
JSESSIONID back, and a load balancer its own. Where CSRF protection is on, every answer to a GET names the
header and the token that a POST must carry (page CSRFProtection); both are re-read from every answer.

A POST is never repeated by this client. `NotSent` means that no connection was made; after that every fault
is `AnswerLost`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from service.errors import AnswerLost, NotSent
from service.gws import dialect
from service.gws.answers import Answer

LARGEST_ANSWER = 8 << 20  # bytes


class CookieJar(Protocol):
    """The agent's cookies; REST and CometD requests share them."""

    def header(self, url: URL) -> str | None: ...
    def store(self, url: URL, set_cookie: Iterable[str]) -> None: ...


class CheckedBody(aiohttp.BytesPayload):
    """A request's body that asks, when the connection stands, whether it may still be sent.

    aiohttp holds the headers back until the body's first byte is written, so a refusal here means that not a
    byte of the request has left.
    """

    def __init__(self, body: bytes, may_send: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(body, content_type="application/json")
        self.refused = False
        self._may_send = may_send

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.refused = True  # until it is allowed; a check that fails refuses too
        if not await self._may_send():
            raise ConnectionError("not allowed to be sent any more")
        self.refused = False
        await super().write_with_length(writer, content_length)


class GwsClient:
    """GWS as one agent sees it. `base_url` is GWS's without ``/api/v2``; times in seconds.

    `http` may be shared by all agents; its own cookie jar must be a dummy.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        base_url: str,
        user: str,
        password: str,
        *,
        cookies: CookieJar,
        timeout_s: float,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.user = user
        self._http = http
        self._cookies = cookies
        self._authorization = aiohttp.encode_basic_auth(user, password)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(5.0, timeout_s))
        self._csrf: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"GwsClient({self.base_url!r}, {self.user!r})"

    def headers(self) -> dict[str, str]:
        """What every request of this agent must carry, CometD's included."""
        return {"Authorization": self._authorization, **self._csrf}

    @property
    def csrf(self) -> Mapping[str, str]:
        """The header that carries the CSRF token, where there is one; a credential."""
        return self._csrf

    def restore(self, csrf: Mapping[str, str]) -> None:
        """Take up the CSRF token of an earlier process, whose cookies are taken up too."""
        self._csrf = dict(csrf)

    def observe(self, headers: Mapping[str, str]) -> None:
        """Take the CSRF token from an answer's headers, where there is one."""
        name = headers.get(dialect.CSRF_NAME_HEADER)
        token = headers.get(name) if name else None
        if name and token:
            self._csrf = {name: token}

    async def me(self) -> Answer:
        """``GET /api/v2/me``: who we are; brings cookies and the CSRF token."""
        return await self._request("GET", dialect.ME)

    async def calls(self) -> Answer:
        """``GET /api/v2/me/calls?fields=*``: every active call of the agent, whole."""
        return await self._request("GET", f"{dialect.MY_CALLS}?fields=*")

    async def call(self, call_id: str) -> Answer:
        """``GET /api/v2/me/calls/{id}``; statusCode 6 when the call is not (or no longer) the agent's."""
        return await self._request("GET", dialect.call_path(call_id))

    async def start_session(self, place: str | None) -> Answer:
        """``StartContactCenterSession`` for voice: logs the agent in. A recorder must not do it unasked."""
        command: dict[str, Any] = {"operationName": dialect.START_SESSION, "channels": ["voice"]}
        if place:
            command["place"] = place
        return await self._request("POST", dialect.ME, json.dumps(command).encode())

    async def command_call(
        self, call_id: str, body: bytes, *, may_send: Callable[[], Awaitable[bool]]
    ) -> Answer:
        """``POST /api/v2/me/calls/{id}`` with an operation's JSON, sent at most once.

        `may_send` is asked when the connection stands, as the last step before the first byte leaves.
        """
        return await self._request("POST", dialect.call_path(call_id), CheckedBody(body, may_send))

    async def _request(self, method: str, path: str, body: bytes | CheckedBody | None = None) -> Answer:
        """Send one request and read the whole answer.

        Raises:
            NotSent: no connection could be made, or the request was held back.
            AnswerLost: the request may have reached GWS, and no whole answer came.

        """
        url = URL(self.base_url + path, encoded=True)
        headers = self.headers()
        if body is not None:
            headers["Content-Type"] = "application/json"
        if cookie := self._cookies.header(url):
            headers["Cookie"] = cookie
        try:
            async with self._http.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                answer = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    answer += chunk
                    if len(answer) > LARGEST_ANSWER:
                        raise AnswerLost(f"{method} {path}: the answer exceeds {LARGEST_ANSWER} bytes")
                self._cookies.store(url, response.headers.getall("Set-Cookie", ()))
                self.observe(response.headers)
                return Answer.of(response.status, response.headers.get("Content-Type", ""), bytes(answer))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise NotSent(f"{method} {path}: no connection to GWS ({error})") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(body, CheckedBody) and body.refused:
                raise NotSent(f"{method} {path}: held back, its sender had lost its claim") from error
            told = str(error) or type(error).__name__
            raise AnswerLost(f"{method} {path}: no answer from GWS ({told})") from error
