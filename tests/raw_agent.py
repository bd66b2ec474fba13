"""A raw client for one agent: it knows HTTP and writes each Bayeux message by hand."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from service.simulator import Simulator

DEADLINE = aiohttp.ClientTimeout(total=30)


class AgentClient:
    def __init__(self, sim: Simulator, number: str, http: aiohttp.ClientSession) -> None:
        self.sim, self.number, self.http = sim, number, http
        self.client_id = ""
        self.csrf: dict[str, str] = {}
        self._id = 0

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.http.get(self.sim.url + path) as response:
            if "X-CSRF-HEADER" in response.headers:
                name = response.headers["X-CSRF-HEADER"]
                self.csrf = {name: response.headers[name]}
            return response.status, json.loads(await response.read())

    async def post(self, path: str, body: Any) -> tuple[int, bytes]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.sim.url + path, data=data, headers=self.csrf) as response:
            return response.status, await response.read()

    async def operate(self, call_id: str, operation: str, **parameters: Any) -> tuple[int, bytes]:
        return await self.post(f"/api/v2/me/calls/{call_id}", {"operationName": operation, **parameters})

    async def transfer(self, call_id: str, to: str, **more: Any) -> tuple[int, bytes]:
        return await self.operate(call_id, "SingleStepTransfer", destination={"phoneNumber": to}, **more)

    async def bayeux_raw(self, *messages: dict[str, Any]) -> tuple[int, bytes]:
        sent = []
        for message in messages:
            self._id += 1
            sent.append({"id": str(self._id), "clientId": self.client_id} | message)
        return await self.post("/api/v2/notifications", sent)

    async def bayeux(self, *messages: dict[str, Any]) -> list[Any]:
        status, body = await self.bayeux_raw(*messages)
        assert status == 200, body
        answers: list[Any] = json.loads(body)
        return answers

    async def handshake(self, *, ack: bool = True) -> dict[str, Any]:
        hello: dict[str, Any] = {
            "channel": "/meta/handshake",
            "version": "1.0",
            "supportedConnectionTypes": ["long-polling"],
        }
        (reply,) = await self.bayeux(hello | ({"ext": {"ack": True}} if ack else {}))
        self.client_id = reply["clientId"]
        return dict(reply)

    async def subscribe(self, *channels: str) -> list[Any]:
        return await self.bayeux({"channel": "/meta/subscribe", "subscription": list(channels)})

    async def open(self, *channels: str, ack: bool = True) -> None:
        await self.handshake(ack=ack)
        await self.subscribe(*(channels or ("/v2/me/*",)))

    def connect_message(self, *, ack: int | None = None, hold_ms: int | None = None) -> dict[str, Any]:
        message: dict[str, Any] = {"channel": "/meta/connect", "connectionType": "long-polling"}
        if hold_ms is not None:
            message["advice"] = {"timeout": hold_ms}
        if ack is not None:
            message["ext"] = {"ack": ack}
        return message

    async def connect(self, *, ack: int | None = None, hold_ms: int | None = None) -> list[Any]:
        return await self.bayeux(self.connect_message(ack=ack, hold_ms=hold_ms))

    async def connect_raw(self, *, ack: int | None = None, hold_ms: int | None = 0) -> tuple[int, bytes]:
        return await self.bayeux_raw(self.connect_message(ack=ack, hold_ms=hold_ms))

    def hold(self, **how: Any) -> "asyncio.Task[tuple[int, bytes]]":
        return asyncio.create_task(self.connect_raw(**({"hold_ms": None} | how)))

    async def held(self) -> None:
        """Wait until the server holds this agent's poll."""
        await self.sim.until(lambda: any(one.held for one in self.sim.bayeux.sessions_of(self.number)))


@asynccontextmanager
async def agent_client(
    sim: Simulator, number: str, password: str | None = None
) -> AsyncIterator[AgentClient]:
    credentials = base64.b64encode(f"{number}:{password or f'secret-{number}'}".encode()).decode()
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Basic {credentials}"},
        cookie_jar=aiohttp.CookieJar(unsafe=True, quote_cookie=False),
        timeout=DEADLINE,
    ) as http:
        yield AgentClient(sim, number, http)


def events(messages: list[Any]) -> list[Any]:
    return [message for message in messages if "successful" not in message]


def states(messages: list[Any]) -> list[str]:
    return [event["data"]["call"]["state"] for event in events(messages)]
