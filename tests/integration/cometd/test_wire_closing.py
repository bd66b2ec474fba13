"""The end on real sockets, and who goes on after it."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from consumer import record
from tiny_server import TinyServer, running

from service.cometd import (
    Delivery,
    Opened,
    Resumed,
    Stopped,
)


@pytest.mark.parametrize("ack", [True, False])
async def test_a_successor_goes_on_where_its_predecessor_left_off(
    http: aiohttp.ClientSession, *, ack: bool
) -> None:
    async with running(TinyServer(ack=ack, cookie="B=1")) as server:
        first = record(http, server)
        await server.holds_a_poll()
        server.publish("1")
        await first.see(Delivery)
        await server.holds_a_poll()
        stopped = await first.end(keep_session=True)
        assert stopped.kept
        state = first.client.resume_state
        assert state is not None
        server.publish("2")
        second = record(http, server, resume=state, acked=first.client.acked)
        await second.see(Delivery)
        await server.holds_a_poll()
        await second.end()
        assert first.data + second.data == [1, 2]
        assert [type(item) for item in second.items] == [Resumed, Delivery, Stopped]
        assert len(server.sent("/meta/handshake")) == 1


async def test_closing_loses_nothing_that_the_held_poll_carries(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer(ack=False)) as server:
        consumer = record(http, server)
        await server.holds_a_poll()
        held = server.held
        assert held is not None
        server.publish("1")
        consumer.client.close()
        await consumer.end()
        assert consumer.data == [1]
        assert server.client_id is None


async def test_a_consumer_that_goes_away_leaves_nothing_behind(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        consumer = record(http, server)
        await server.holds_a_poll()
        consumer.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer.task
        await server.has_lost_a_client()
        names = [repr(task) for task in asyncio.all_tasks() if "LongPolling" in repr(task)]
        assert not names


async def test_an_iterator_is_there_once(http: aiohttp.ClientSession) -> None:
    async with running(TinyServer()) as server:
        consumer = record(http, server)
        await consumer.see(Opened)
        with pytest.raises(RuntimeError, match="before"):
            await anext(aiter(consumer.client.deliveries()))
        await consumer.end()
