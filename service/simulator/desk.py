"""An agent's application: it sends what the agent clicks, as a softphone does, to any GWS address.

It speaks REST only, keeps the cookies and the CSRF token of its agent, and lives with whatever it is
answered: its human looks at the telephone, not at the status code.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Self

import aiohttp

from service.simulator.agents import Agent

PATIENCE = aiohttp.ClientTimeout(total=30)


class Desk:
    """One agent's application, sending to `url`. A `connector` may be shared by many."""

    def __init__(self, agent: Agent, url: str, connector: aiohttp.BaseConnector) -> None:
        self._url = url
        self._csrf: dict[str, str] = {}
        self._http = aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            headers={"Authorization": agent.authorization},
            cookie_jar=aiohttp.CookieJar(unsafe=True, quote_cookie=False),
            timeout=PATIENCE,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def log_in(self) -> int | None:
        """Start the agent's contact centre session on the voice channel."""
        await self._meet()
        return await self._post("/api/v2/me", "StartContactCenterSession", {"channels": ["voice"]})

    async def operate(self, call_id: str, operation: str, **parameters: Any) -> int | None:
        """Send an operation on a call; gives the HTTP status, None when no answer came."""
        status = await self._post(f"/api/v2/me/calls/{call_id}", operation, parameters)
        if status == HTTPStatus.FORBIDDEN:  # the HTTP session is gone: make another, for next time
            await self._meet()
        return status

    async def _meet(self) -> None:
        """GET oneself, for the cookie and the CSRF token."""
        try:
            async with self._http.get(self._url + "/api/v2/me") as response:
                name = response.headers.get("X-CSRF-HEADER")
                self._csrf = {name: response.headers.get(name, "")} if name else {}
                await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return

    async def _post(self, path: str, operation: str, parameters: dict[str, Any]) -> int | None:
        body = {"operationName": operation, **parameters}
        try:
            async with self._http.post(self._url + path, json=body, headers=self._csrf) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return None


async def click_twice(desk: Desk, call_id: str, operation: str, **parameters: Any) -> None:
    """Send the same operation twice at the same time, as an impatient hand does."""
    await asyncio.gather(*(desk.operate(call_id, operation, **parameters) for _ in range(2)))
