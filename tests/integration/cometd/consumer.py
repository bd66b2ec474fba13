"""A consumer of a client, in a task, whose items tests can wait for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from tiny_server import CHANNEL, TinyServer

from service.cometd import (
    Client,
    Delivery,
    Item,
    LongPolling,
    Stopped,
    Timing,
)

QUICK = Timing(allowance=5.0, reply=5.0, retry_cap=0.05, refused=0.02, refused_cap=0.02, pace=(0.01, 0.02))


class Consumer:
    """Runs a client in a task, confirms what comes (unless told not to) and lets tests wait for facts."""

    def __init__(self, client: Client, *, confirming: bool = True) -> None:
        self.client = client
        self.confirming = confirming
        self.items: list[Item] = []
        self.raw: list[bytes] = []
        self._news = asyncio.Condition()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for item in self.client.deliveries():
            self.items.append(item)
            if isinstance(item, Delivery) and self.confirming:
                self.raw += [message.raw for message in item.messages]
                item.confirm()
            async with self._news:
                self._news.notify_all()

    async def see(self, kind: type, count: int = 1) -> Any:
        """Wait for the n-th item of a kind."""
        async with asyncio.timeout(30), self._news:
            while len(found := [item for item in self.items if isinstance(item, kind)]) < count:
                await self._news.wait()
        return found[count - 1]

    async def end(self, *, keep_session: bool = False) -> Stopped:
        self.client.close(keep_session=keep_session)
        async with asyncio.timeout(30):
            await self.task
        stopped = self.items[-1]
        assert isinstance(stopped, Stopped)
        return stopped

    @property
    def data(self) -> list[Any]:
        return [json.loads(raw)["data"] for raw in self.raw]


def record(http: aiohttp.ClientSession, server: TinyServer, **options: Any) -> Consumer:
    return Consumer(Client(LongPolling(http, server.url), [CHANNEL], timing=QUICK, **options))
