"""Transfers through the tap: at most once, answered by GWS's own bytes, by the request's own credentials."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from raw_agent import AgentClient
from raw_peers import raw_client
from tapping import Tapped, application, tapped

from service.errors import DatabaseUnavailable
from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator
from service.transfers import State
from service.transfers.journal import Journal

BODY = b'{ "operationName": "SingleStepTransfer", "destination": {"phoneNumber": "15002"} }'


def answered_call(simulator: Simulator) -> str:
    call = simulator.place_call("15001", "15000")
    simulator.answer(call.id, "15000")
    return call.id


async def settled(site: Tapped, call_id: str) -> State:
    """The call's transfer, when evidence has settled it."""
    async with asyncio.timeout(30):
        while True:
            head = site.log.watch.next_position - 1
            [transfer] = (await site.handler.journal.load(call_id)).transfers.values()
            if transfer.state in {State.CONFIRMED, State.FAILED, State.REJECTED}:
                return transfer.state
            await site.log.watch.beyond(head)


async def post(agent: AgentClient, call_id: str, **headers: str) -> tuple[int, bytes, Any]:
    url = f"{agent.sim.url}/api/v2/me/calls/{call_id}"
    async with agent.http.post(url, data=BODY, headers={**agent.csrf, **headers}) as response:
        return response.status, await response.read(), response.headers


async def test_the_answer_is_the_servers_byte_for_byte_and_the_request_reached_it_as_it_was(
    database: Database, log: EventLog
) -> None:
    async with Simulator(seed=1) as simulator, tapped(database, log, simulator) as site:
        seen = []
        for url in (simulator.url, site.tap.url):
            call_id = answered_call(simulator)
            async with application(simulator, simulator.url) as agent, raw_client(url) as client:
                await agent.get("/api/v2/me")
                cookie = "; ".join(f"{one.key}={one.value}" for one in agent.http.cookie_jar)
                head = (
                    f"POST /api/v2/me/calls/{call_id} HTTP/1.1\r\nhost: x\r\nCookie: {cookie}\r\n"
                    f"Content-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
                )
                client.writer.write(head.encode() + BODY)
                answer = await client.rest()
            seen.append([line for line in answer.split(b"\r\n") if not line.startswith(b"Date:")])
            assert simulator.truth.commands[-1].body == BODY
        assert seen[0] == seen[1]
        [requested] = await site.events("TransferRequested")
        assert (requested.agent, requested.caller, requested.door) == ("15000", "15000", "tap")
        assert [one for one in await site.kinds() if one.startswith("Transfer")] == [
            "TransferRequested",
            "TransferDispatched",
            "TransferAccepted",
        ]


@pytest.mark.parametrize("keyed", [True, False])
async def test_what_is_sent_again_is_not_done_again(
    database: Database, log: EventLog, *, keyed: bool
) -> None:
    async with (
        Simulator(seed=1, csrf=True, answer_after_s=None) as simulator,
        tapped(database, log, simulator) as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.get("/api/v2/me")
        call_id = answered_call(simulator)
        headers = {"Idempotency-Key": "one"} if keyed else {}
        answers = await asyncio.gather(*(post(agent, call_id, **headers) for _ in range(8)))
        assert Counter((status, body) for status, body, _ in answers) == {(200, b'{"statusCode":0}'): 8}
        assert sum("Idempotent-Replayed" in headers for _, _, headers in answers) == 7
        assert len(simulator.truth.transfers_of(call_id)) == 1
        if keyed:
            other = await post(agent, answered_call(simulator), **headers)
            assert (other[0], json.loads(other[1])["statusCode"]) == (422, 2)


@pytest.mark.parametrize("fault", ["drop_after_execution", "drop_before_execution", "http_502"])
async def test_what_is_in_doubt_is_not_sent_again_and_settled_by_evidence(
    database: Database, log: EventLog, fault: Any
) -> None:
    async with (
        Simulator(seed=1) as simulator,
        tapped(database, log, simulator, settling=True) as site,
        application(simulator, site.tap.url) as agent,
        application(simulator, site.tap.url, "15002") as destination,
    ):
        await destination.open("/v2/me/calls")
        await agent.open("/v2/me/calls")
        call_id = answered_call(simulator)
        await agent.connect(ack=0, hold_ms=0)
        simulator.faults.add(fault, call=call_id, executed=fault == "drop_after_execution")
        status, body, _ = await post(agent, call_id)
        if fault == "http_502":
            assert (status, b"Bad Gateway" in body) == (502, True)
        else:
            assert (status, json.loads(body)["statusCode"]) == (504, 9)
        again = await post(agent, call_id)
        assert again[0] in {200, 504}
        await destination.connect(ack=0, hold_ms=0)
        executed = fault == "drop_after_execution"
        assert await settled(site, call_id) is (State.CONFIRMED if executed else State.FAILED)
        assert len(simulator.truth.transfers_of(call_id)) == executed


async def test_nobody_is_believed_to_be_who_gws_does_not_let_in(database: Database, log: EventLog) -> None:
    async with (
        Simulator(seed=1, answer_after_s=None) as simulator,
        tapped(database, log, simulator) as site,
        application(simulator, site.tap.url) as agent,
        application(simulator, site.tap.url, "15000") as impostor,
    ):
        call_id = answered_call(simulator)
        assert (await post(agent, call_id))[0] == 200
        impostor.http.headers["Authorization"] = "Basic MTUwMDA6d3Jvbmc="  # 15000:wrong
        status, body, headers = await post(impostor, call_id)
        assert (status, json.loads(body)["statusCode"]) == (403, 20)
        assert "Calltrail-Transfer" not in headers
        assert len(await site.events("TransferRequested")) == 1


async def test_a_cookie_alone_suffices(simulator: Simulator, site: Tapped) -> None:
    async with application(simulator, site.tap.url, basic=False) as agent:
        assert (await post(agent, answered_call(simulator)))[0] == 200
        [requested] = await site.events("TransferRequested")
        assert requested.agent == "15000"
        everything = b"".join(one.payload for one in await site.log.read(limit=1000))
        for cookie in agent.http.cookie_jar:
            assert cookie.value.encode() not in everything


async def test_what_is_no_sound_transfer_is_left_to_gws(
    simulator: Simulator, site: Tapped, agent: AgentClient
) -> None:
    call_id = answered_call(simulator)
    for body in (b"{}", b"[1]", b"\xff", b'{"operationName":"SingleStepTransfer"}', bytes(400_000)):
        directly = await AgentClient.post(agent, f"/api/v2/me/calls/{call_id}", body)
        assert directly[0] == 400
    assert not await site.events("TransferRequested")
    assert len(await site.events("CommandObserved")) == 5
    assert not simulator.truth.transfers_of(call_id)


async def test_curls_habits_chunks_and_expect(simulator: Simulator, site: Tapped) -> None:
    async with raw_client(site.tap.url) as client:
        call_id = answered_call(simulator)
        head = (
            f"POST /api/v2/me/calls/{call_id} HTTP/1.1\r\nHost: x\r\n"
            "Authorization: Basic MTUwMDA6c2VjcmV0LTE1MDAw\r\nTransfer-Encoding: chunked\r\n"
            "Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert await client.ask(head.encode(), 25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(
            b"10\r\n" + BODY[:16] + b"\r\n%x\r\n" % len(BODY[16:]) + BODY[16:] + b"\r\n0\r\n\r\n"
        )
        assert (await client.rest()).endswith(b'{"statusCode":0}')
        assert len(simulator.truth.transfers_of(call_id)) == 1
        assert len(await site.events("TransferAccepted")) == 1


async def test_a_client_that_goes_does_not_stop_what_is_dispatched(
    simulator: Simulator, site: Tapped, agent: AgentClient
) -> None:
    await agent.get("/api/v2/me")
    call_id = answered_call(simulator)
    simulator.faults.add("late_answer", call=call_id, seconds=0.6)
    sending = asyncio.create_task(post(agent, call_id))
    await simulator.until(lambda: simulator.truth.transfers_of(call_id))
    sending.cancel()
    await site.until("TransferAccepted")


async def test_gws_that_cannot_be_reached_is_told_so_and_nothing_is_in_doubt(
    simulator: Simulator, site: Tapped, agent: AgentClient
) -> None:
    await agent.get("/api/v2/me")
    call_id = answered_call(simulator)
    await simulator.stop()
    status, body, _ = await post(agent, call_id)
    assert (status, json.loads(body)["statusCode"]) == (503, 4)
    assert [one for one in await site.kinds() if one.startswith("Transfer")][-1] == "TransferRejected"


async def test_a_log_that_goes_away_when_the_request_has_left_does_not_have_it_sent_again(
    simulator: Simulator, site: Tapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GWS has answered, and that cannot be recorded: it must not look as if nothing had been sent."""
    append = site.log.append

    async def away(events: Any, **more: Any) -> list[int]:
        if any(event.kind == "TransferAccepted" for event in events):
            raise DatabaseUnavailable("away")
        return await append(events, **more)

    monkeypatch.setattr(site.log, "append", away)
    call_id = answered_call(simulator)
    async with application(simulator, site.tap.url) as agent:
        await agent.get("/api/v2/me")
        status, _, _ = await post(agent, call_id)
    assert [one.call_id for one in simulator.truth.commands].count(call_id) == 1
    assert status == 504


async def test_what_repeats_a_transfer_is_not_sent_although_the_log_cannot_be_read(
    simulator: Simulator, site: Tapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: str) -> None:
        raise DatabaseUnavailable("away")

    call_id = answered_call(simulator)
    async with application(simulator, site.tap.url) as agent:
        await agent.get("/api/v2/me")
        assert (await post(agent, call_id))[0] == 200
        monkeypatch.setattr(Journal, "load", staticmethod(away))
        status, _, _ = await post(agent, call_id)
    assert [one.call_id for one in simulator.truth.commands].count(call_id) == 1
    assert status == 504
