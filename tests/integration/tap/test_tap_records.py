"""What passes the tap is in the log, verbatim, once, and before the client has it."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import aiohttp
import pytest
from raw_agent import AgentClient
from raw_peers import RawServer
from tapping import Tapped, application, body_of, inject, numbered, tapped

from service.log import EventLog
from service.postgres import Database
from service.projections import Engine, catalogue
from service.simulator import Simulator

CALLS = "/v2/me/calls"


async def test_what_is_delivered_is_recorded_verbatim_before_the_client_has_it(
    simulator: Simulator, site: Tapped, agent: AgentClient
) -> None:
    await agent.open(CALLS)
    bodies = inject(simulator, range(3))
    odd = b'{ "channel":"/v2/me/calls" , "data":{"n":1.50e+2,"n":"\\u00e4","\\ud83d\\ude00":[]} }'
    simulator.inject("15000", odd)
    status, answer = await agent.connect_raw(ack=0)
    assert status == 200
    assert odd in answer
    assert await site.bodies() == [*bodies, odd]
    [opened] = await site.events("SessionOpened")
    assert (opened.agent, opened.ack, opened.channels) == ("15000", True, (CALLS,))
    received = await site.events("NotificationReceived")
    assert [(one.agent, one.session, one.count) for one in received] == [
        ("15000", opened.session, count) for count in range(4)
    ]


async def test_an_answer_is_withheld_until_its_events_are_durable(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, let_go = asyncio.Event(), asyncio.Event()
    append = log.append

    async def slow(events: Any, **more: Any) -> list[int]:
        if any(event.kind == "NotificationReceived" for event in events):
            began.set()
            await let_go.wait()
        return await append(events, **more)

    async with (
        Simulator(seed=1) as simulator,
        tapped(database, log, simulator, patience_s=30.0) as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        monkeypatch.setattr(log, "append", slow)
        inject(simulator, range(1))
        answer = agent.hold(ack=0)
        await began.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not answer.done()
        let_go.set()
        assert (await answer)[0] == 200


async def test_a_redelivery_is_recognised_and_what_comes_with_it_is_new(
    simulator: Simulator, site: Tapped, agent: AgentClient
) -> None:
    await agent.open(CALLS)
    first = inject(simulator, range(2))
    await agent.connect(ack=0, hold_ms=0)
    second = inject(simulator, range(2, 4))
    await agent.connect(ack=0, hold_ms=0)  # nothing was acknowledged: all four come
    await agent.connect(ack=1, hold_ms=0)  # two of them are
    third = inject(simulator, range(4, 5))
    await agent.connect(ack=2, hold_ms=0)
    same = inject(simulator, range(4, 5))  # an equal one is another one
    await agent.connect(ack=4, hold_ms=0)
    assert await site.bodies() == first + second + third + same


async def test_without_acknowledgement_events_of_any_answer_are_recorded_and_a_failed_poll_is_a_gap(
    database: Database, log: EventLog
) -> None:
    async with (
        Simulator(seed=1, ack=False) as simulator,
        tapped(database, log, simulator) as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        bodies = inject(simulator, range(2))
        await agent.subscribe("/v2/me/devices")
        assert await site.bodies() == bodies
        simulator.faults.add("lose_response", operation="connect")
        with pytest.raises(aiohttp.ClientError):
            await agent.connect_raw(hold_ms=0)
        bodies += inject(simulator, range(2, 3))
        await agent.connect(hold_ms=0)
        [gap] = await site.events("GapSuspected")
        assert gap.agent == "15000"
        assert await site.bodies() == bodies


@pytest.mark.parametrize("how", ["disconnect", "402", "server"])
async def test_how_a_session_ends_is_recorded(
    simulator: Simulator, site: Tapped, agent: AgentClient, how: str
) -> None:
    await agent.open(CALLS)
    await agent.connect(ack=0, hold_ms=0)
    if how == "disconnect":
        await agent.bayeux({"channel": "/meta/disconnect"})
        [ended] = await site.events("SessionClosed")
    else:
        kind = "kill_session" if how == "402" else "server_disconnect"
        simulator.faults.add(kind, operation="connect")
        await agent.connect(ack=1, hold_ms=0)
        [ended] = await site.events("SessionLost")
        assert ended.last_alive is not None
    [opened] = await site.events("SessionOpened")
    assert (ended.agent, ended.session) == ("15000", opened.session)
    await agent.open(CALLS)
    assert len({one.session for one in await site.events("SessionOpened")}) == 2


async def test_a_client_that_stops_polling_loses_its_coverage(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.tap.recording.BEAT_S", 0.02)
    monkeypatch.setattr("service.tap.recording.MAX_INTERVAL_MS", 50)
    async with (
        Simulator(seed=1, timeout_ms=20) as simulator,
        tapped(database, log, simulator) as site,
        application(simulator, site.tap.url) as agent,
    ):
        await agent.open(CALLS)
        await agent.connect(ack=0)
        monkeypatch.setattr("service.tap.sessions.GRACE_S", 0.0)
        [lost] = await site.until("SessionLost")
        assert lost.cause == "its client has stopped polling"
        assert await database.pool.fetchval("SELECT count(*) FROM tap_session") == 0


async def test_another_process_goes_on_with_the_session(database: Database, log: EventLog) -> None:
    async with Simulator(seed=1) as simulator:
        async with (
            tapped(database, log, simulator) as site,
            application(simulator, site.tap.url) as agent,
        ):
            await agent.open(CALLS)
            bodies = inject(simulator, range(2))
            await agent.connect(ack=0, hold_ms=0)
            cookies, client_id = agent.http.cookie_jar, agent.client_id
        async with (
            tapped(database, log, simulator) as site,
            application(simulator, site.tap.url) as agent,
        ):
            agent.http._cookie_jar, agent.client_id = cookies, client_id
            bodies += inject(simulator, range(2, 3))
            await agent.connect(ack=0, hold_ms=0)
            bodies += inject(simulator, range(3, 4))
            await agent.connect(ack=2, hold_ms=0)
            assert await site.bodies() == bodies
            assert len(await site.events("SessionResumed")) == 1
            assert not await site.events("GapSuspected", "SessionLost")
            counts = [one.count for one in await site.events("NotificationReceived")]
            assert counts == [0, 1, 2, 3]


async def test_what_an_unclean_process_may_have_passed_on_is_a_gap(database: Database, log: EventLog) -> None:
    async with (
        Simulator(seed=1) as simulator,
        tapped(database, log, simulator) as before,
        application(simulator, before.tap.url) as agent,
    ):
        await agent.open(CALLS)
        inject(simulator, range(1))
        await agent.connect(ack=0, hold_ms=0)
        await before.tap.recording.loop.stop()
        await agent.connect(ack=1, hold_ms=0)
        await agent.connect(ack=2, hold_ms=0)  # the log does not know of these
        async with tapped(database, log, simulator) as site:
            agent.sim.url = site.tap.url  # type: ignore[misc]
            await agent.connect(ack=3, hold_ms=0)
            [gap] = await site.events("GapSuspected")
            assert gap.last_alive is not None


async def test_who_is_behind_a_cookie_is_filled_in_when_it_is_known(
    simulator: Simulator, site: Tapped
) -> None:
    async with application(simulator, site.tap.url, basic=False) as agent:
        await agent.open(CALLS)
        inject(simulator, range(1))
        await agent.connect(ack=0, hold_ms=0)
        await agent.operate("no-such-call", "Hold")
        assert not await site.events("SessionOpened")
        await agent.get("/api/v2/me?subresources=*")
        await agent.connect(ack=1, hold_ms=0)
        [first] = await site.events("NotificationReceived")
        [command] = await site.events("CommandObserved")
        assert first.agent is command.agent is None
        told = {one.session: one.agent for one in await site.events("AgentIdentified")}
        assert told == {first.session: "15000", command.session: "15000"}
        [opened] = await site.events("SessionOpened")
        assert opened.agent == "15000"
        inject(simulator, range(1, 2))
        await agent.connect(ack=1, hold_ms=0)
        assert [one.agent for one in await site.events("NotificationReceived")] == [None, "15000"]


async def test_commands_are_recorded_with_answers_and_without_secrets(
    simulator: Simulator, site: Tapped, agent: AgentClient
) -> None:
    call = simulator.place_call("15001", "15000")
    simulator.answer(call.id, "15000")
    held = b'{ "operationName": "Hold", "extensions": {"x": 1.0} }'
    status, answer = await agent.post(f"/api/v2/me/calls/{call.id}?u=1", held)
    change = {
        "operationName": "ChangePassword",
        "oldPassword": "hunter-one",
        "x": [{"TOKEN": "hunter-two"}],
    }
    await agent.post("/api/v2/me", change)
    await agent.post("/api/v2/me/calls/none", b"no json, password=hunter-three")
    stored = await site.log.read(kinds=["CommandObserved"])
    first, second, third = await site.events("CommandObserved")
    assert (first.operation, first.call_id, first.agent) == ("Hold", call.id, "15000")
    assert first.http_status == status
    assert body_of(stored[0]) == b"[" + held + b"," + answer + b"]"
    assert body_of(stored[2]).startswith(b"[null,{")
    assert stored[0].stream == f"call-{call.id}"
    assert second.left_out[:2] == ("oldPassword", "TOKEN")
    assert (third.operation, third.left_out[0]) == (None, "request")
    everything = b"".join(one.payload for one in await site.log.read(limit=1000))
    for secret in (b"hunter", b"secret-15000"):
        assert secret not in everything


async def test_unreadable_and_compressed_answers(database: Database, log: EventLog) -> None:
    plain = b"[" + numbered(1) + b"," + numbered(2) + b"]"
    bomb = gzip.compress(bytes(64 << 20))
    bodies = {b"gzip": gzip.compress(plain), b"br": b"\x00br", b"identity": b"[{", b"x-gzip": bomb}

    async def script(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await server.read_head(reader)
        await server.read(reader, 2)
        coding = head.split(b" ")[1].rpartition(b"/")[2]
        body = bodies[coding]
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (coding, len(body)) + body)

    async with (
        Simulator(seed=1) as simulator,
        RawServer(script=script) as server,
        tapped(database, log, simulator, url=server.url) as site,
        aiohttp.ClientSession(auto_decompress=False) as http,
    ):
        for coding, body in bodies.items():
            async with http.post(
                f"{site.tap.url}/api/v2/notifications/{coding.decode()}", data=b"[]"
            ) as answer:
                assert await answer.read() == body
        assert await site.bodies() == [numbered(1), numbered(2)]
        kept = [body_of(one) for one in await log.read(kinds=["UnreadableReceived"])]
        assert kept == [bodies[b"br"], bodies[b"identity"], bomb]


async def test_two_sources_that_see_the_same_are_one_in_the_views(
    database: Database, simulator: Simulator, site: Tapped
) -> None:
    async with application(simulator, site.tap.url) as one, application(simulator, site.tap.url) as other:
        for agent in (one, other):
            await agent.open(CALLS)
        call = simulator.place_call("15001", "15000")
        await one.connect(ack=0, hold_ms=0)
        simulator.answer(call.id, "15000")
        await one.connect(ack=1, hold_ms=0)
        await other.connect(ack=0, hold_ms=0)  # tells late what the other has told already
        assert len(await site.bodies()) == 2 * len(set(await site.bodies()))
        engine = Engine(database, site.log, catalogue())
        engine.loop.start()
        try:
            await engine.reached(await site.log.next_position() - 1, timeout_s=20)
            history = "SELECT state FROM call_state WHERE call_id = $1 ORDER BY from_position"
            rows = await database.pool.fetch(history, call.id)
            assert [row["state"] for row in rows] == ["Ringing", "Established"]
        finally:
            await engine.loop.stop()


async def test_an_agent_with_a_session_of_our_own_is_not_recorded_twice(
    database: Database, log: EventLog
) -> None:
    async with (
        Simulator(seed=1) as simulator,
        tapped(database, log, simulator, has_session=lambda agent: agent == "15000") as site,
        application(simulator, site.tap.url) as own,
        application(simulator, site.tap.url, "15001") as tapped_only,
    ):
        for agent in (own, tapped_only):
            await agent.open(CALLS)
            inject(simulator, range(1), agent.number)
            assert len(await agent.connect(ack=0, hold_ms=0)) == 2
            await agent.operate("none", "Hold")
        assert [one.agent for one in await site.events("NotificationReceived")] == ["15001"]
        assert [one.agent for one in await site.events("CommandObserved")] == ["15000", "15001"]


async def test_the_clients_answers_are_those_of_the_simulator(database: Database, log: EventLog) -> None:
    async with (
        Simulator(seed=1, csrf=True) as simulator,
        tapped(database, log, simulator) as site,
        application(simulator, site.tap.url) as agent,
    ):
        status, me = await agent.get("/api/v2/me")
        assert (status, me["user"]["userName"]) == (200, "15000")
        await agent.open(CALLS)
        held = agent.hold(ack=0)
        await agent.held()
        [body] = inject(simulator, range(1))
        status, answer = await held
        assert (status, json.loads(answer)[0]) == (200, json.loads(body))


async def test_a_page_that_is_loaded_anew_leaves_a_gap_between_its_sessions(
    simulator: Simulator, site: Tapped
) -> None:
    async with application(simulator, site.tap.url) as before, application(simulator, site.tap.url) as after:
        await before.open(CALLS)
        await before.connect(ack=0, hold_ms=0)
        await after.open(CALLS)
        first, second = await site.events("SessionOpened")
        [gap] = await site.events("GapSuspected")
        assert (gap.session, gap.at) == (second.session, second.at)
        assert first.at < gap.last_alive < second.at


async def test_of_two_pages_side_by_side_one_is_enough(simulator: Simulator, site: Tapped) -> None:
    async with application(simulator, site.tap.url) as one, application(simulator, site.tap.url) as other:
        await one.open(CALLS)
        held = one.hold(ack=0)
        await one.held()
        await other.open(CALLS)
        await other.bayeux({"channel": "/meta/disconnect"})
        first, _ = await site.events("SessionOpened")
        [resumed] = await site.events("SessionResumed")
        assert resumed.session == first.session
        assert not await site.events("GapSuspected")
        assert (await site.kinds())[-2:] == ["SessionClosed", "SessionResumed"]
        inject(simulator, range(1))
        assert (await held)[0] == 200
