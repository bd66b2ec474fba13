"""Agents' applications as a fault battery uses them: they keep what they were given, and try again."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from service.simulator import Simulator

PATIENCE = aiohttp.ClientTimeout(total=5.0)
RETRY_S = 0.05
"""The pause before what failed is tried again. It is part of the load: real applications pause like this, and
nothing that they could wait for tells them when the other side is there again."""
TROUBLE = (aiohttp.ClientError, TimeoutError, ValueError, KeyError, OSError)


@dataclass
class Application:
    """An agent's application at `url`. `given`: the numbers of the messages that it was ever given."""

    url: str
    user: str
    ack: bool = True
    given: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    _client_id: str = ""
    _id: int = 0

    async def run(self) -> None:
        """Keep a CometD session, for ever."""
        basic = base64.b64encode(f"{self.user}:secret-{self.user}".encode()).decode()
        jar = aiohttp.CookieJar(unsafe=True, quote_cookie=False)
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Basic {basic}"}, cookie_jar=jar, timeout=PATIENCE
        ) as http:
            while True:
                try:
                    await self._session(http)
                except TROUBLE as error:
                    self.failures[type(error).__name__] += 1
                    await asyncio.sleep(RETRY_S)

    async def _session(self, http: aiohttp.ClientSession) -> None:
        async with http.get(f"{self.url}/api/v2/me") as answer:
            await answer.read()
        hello = {"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}
        [reply] = await self._say(http, hello | ({"ext": {"ack": True}} if self.ack else {}))
        self._client_id = reply["clientId"]
        await self._again(http, {"channel": "/meta/subscribe", "subscription": ["/v2/me/calls"]})
        acked = 0
        while True:
            connect: dict[str, Any] = {"channel": "/meta/connect", "connectionType": "long-polling"}
            if self.ack:
                connect["ext"] = {"ack": acked}
            for reply in await self._again(http, connect):
                if reply["channel"] != "/meta/connect":
                    continue
                if not reply["successful"]:
                    raise ValueError(reply["error"])
                acked = reply.get("ext", {}).get("ack", acked)

    async def _again(self, http: aiohttp.ClientSession, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Say a message until it is answered: each of them may be repeated."""
        for _ in range(60):
            try:
                return await self._say(http, message)
            except TROUBLE as error:
                self.failures[type(error).__name__] += 1
                await asyncio.sleep(RETRY_S)
        raise ValueError("nobody answers")

    async def _say(self, http: aiohttp.ClientSession, message: dict[str, Any]) -> list[dict[str, Any]]:
        self._id += 1
        sent = json.dumps([{"id": str(self._id), "clientId": self._client_id} | message]).encode()
        async with http.post(f"{self.url}/api/v2/notifications", data=sent) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise ValueError(f"HTTP {answer.status}")
        replies: list[dict[str, Any]] = json.loads(body)
        self.given += [reply["data"]["number"] for reply in replies if "number" in reply.get("data", {})]
        return replies


async def keep_transferring(simulator: Simulator, url: str, rng: random.Random, tried: list[str]) -> None:
    """Place calls and transfer each, sending it again until it is answered, as an impatient user does."""
    basic = base64.b64encode(b"15003:secret-15003").decode()
    async with aiohttp.ClientSession(headers={"Authorization": f"Basic {basic}"}, timeout=PATIENCE) as http:
        while True:
            call = simulator.place_call("15004", "15003")
            simulator.answer(call.id, "15003")
            tried.append(call.id)
            key = {"Idempotency-Key": call.id} if rng.random() < 0.5 else {}
            body = {"operationName": "SingleStepTransfer", "destination": {"phoneNumber": "15005"}}
            for _ in range(4):
                with suppress(*TROUBLE):
                    path = f"{url}/api/v2/me/calls/{call.id}"
                    async with http.post(path, json=body, headers=key) as answer:
                        await answer.read()
                        if answer.status == 200:
                            break
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(rng.uniform(0, 0.1))  # the user's pace
