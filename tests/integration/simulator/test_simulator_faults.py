import asyncio
import json
from typing import Any

import aiohttp
import pytest
from raw_agent import AgentClient, agent_client, events, states
from yarl import URL

from service.simulator import Call, Simulator

BROKEN = (aiohttp.ClientError, ConnectionError)


@pytest.fixture
async def call(sim: Simulator, agent: AgentClient) -> Call:
    """A call established at the agent, who is subscribed and has seen it."""
    placed = sim.place_call("15001", "15000")
    sim.answer(placed.id, "15000")
    await agent.open("/v2/**")
    return placed


async def seen(agent: AgentClient) -> list[Any]:
    return events(await agent.connect(ack=0, hold_ms=0))


@pytest.mark.parametrize(
    "case",
    [
        ("http_500", {}, 500, {"statusCode": 4, "statusMessage": "Invalid Called Dn"}, False),
        ("http_500", {"executed": True}, 500, {"statusCode": 4, "statusMessage": "Invalid Called Dn"}, True),
        ("http_502", {"executed": True}, 502, None, True),
        ("http_502", {}, 502, None, False),
        ("no_status_code", {}, 200, {}, False),
        ("silence", {}, 200, {"statusCode": 0}, False),
        ("reject", {"status_code": 6, "text": "No"}, 404, {"statusCode": 6, "statusMessage": "No"}, False),
        ("reject", {"status_code": 9, "text": "No"}, 400, {"statusCode": 9, "statusMessage": "No"}, False),
        ("late_answer", {"seconds": 0.05}, 200, {"statusCode": 0}, True),
        ("notification_first", {"seconds": 0.05}, 200, {"statusCode": 0}, True),
    ],
)
async def test_answers(
    sim: Simulator,
    agent: AgentClient,
    call: Call,
    case: tuple[Any, dict[str, Any], int, dict[str, Any] | None, bool],
) -> None:
    kind, rule, status, body, executed = case
    fault = sim.faults.add(kind, **rule)
    answered, text = await agent.transfer(call.id, "15002")
    assert answered == status
    assert (json.loads(text) if body is not None else None) == body
    assert fault.struck == sim.faults.struck[kind] == 1
    assert len(sim.truth.transfers_of(call.id)) == executed
    assert sim.truth.commands[-1].executed is executed
    assert states(await agent.connect(ack=0, hold_ms=0)) == (["Released"] if executed else [])
    if not executed:
        assert (await agent.transfer(call.id, "15002"))[0] == 200
        assert len(sim.truth.transfers) == 1


@pytest.mark.parametrize("kind", ["drop_before_execution", "drop_after_execution"])
async def test_drops(sim: Simulator, agent: AgentClient, call: Call, kind: Any) -> None:
    executed = kind == "drop_after_execution"
    sim.faults.add(kind)
    with pytest.raises(BROKEN):
        await agent.transfer(call.id, "15002")
    assert len(sim.truth.transfers) == executed
    assert sim.truth.commands[-1].answer_status is None
    assert [one["data"]["call"]["state"] for one in await seen(agent)] == (["Released"] if executed else [])


async def test_the_notification_comes_first(sim: Simulator, agent: AgentClient, call: Call) -> None:
    sim.faults.add("notification_first", seconds=1.0)
    poll = agent.hold(ack=0)
    await agent.held()
    transfer = asyncio.create_task(agent.transfer(call.id, "15002"))
    await poll
    assert not transfer.done()
    assert (await transfer)[0] == 200


async def test_a_client_that_gives_up_is_told_all_the_same(
    sim: Simulator, agent: AgentClient, call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    sim.faults.add("late_answer", seconds=1.0)
    transfer = asyncio.create_task(agent.transfer(call.id, "15002"))
    await sim.until(lambda: sim.truth.transfers)
    transfer.cancel()
    assert states(await agent.connect(ack=0)) == ["Released"]
    assert (sim.truth.commands[0].executed, sim.truth.commands[0].answer_status) == (True, None)
    assert not caplog.records


@pytest.mark.parametrize("shape", ["device", "device_message", "call", "user", "event"])
async def test_error_notifications(sim: Simulator, agent: AgentClient, call: Call, shape: str) -> None:
    sim.faults.add("error_notification", shape=shape)
    assert (await agent.transfer(call.id, "15002"))[1] == b'{"statusCode":0}'
    (event,) = await seen(agent)
    data = event["data"]
    found = {
        "device": data.get("messageType") == "ErrorMessage" and "errorMessage" not in data,
        "device_message": data.get("errorMessage") == "Invalid Called Dn"
        and event["channel"] == "/v2/me/devices",
        "call": data.get("notificationType") == "Error"
        and data.get("call", {}).get("state") == "Established",
        "user": data.get("errorCode") == 71 and event["channel"] == "/v2/me",
        "event": data.get("messageType") == "EventError" and data["error"]["errorCode"] == 71,
    }
    assert found[shape]
    assert not sim.truth.transfers


async def test_a_recalled_call_rings_again(sim: Simulator, agent: AgentClient, call: Call) -> None:
    sim.faults.add("recall", seconds=0.05)
    await agent.transfer(call.id, "15002")
    await sim.until(lambda: sim.truth.transfers[0].recalled)
    assert [one["data"]["call"]["state"] for one in await seen(agent)] == ["Released", "Ringing"]
    assert [leg.number for leg in call.live] == ["15001", "15000"]


async def test_a_fault_is_aimed(sim: Simulator, agent: AgentClient, call: Call) -> None:
    elsewhere = sim.faults.add("silence", agent="15001")
    other_call = sim.faults.add("silence", call="another")
    other_operation = sim.faults.add("silence", operation="Hold")
    later = sim.faults.add("silence", after=1, times=None)
    await agent.transfer(call.id, "15002")
    assert len(sim.truth.transfers) == 1
    assert elsewhere.struck == other_call.struck == other_operation.struck == later.struck == 0
    second = sim.place_call("15001", "15000")
    sim.answer(second.id, "15000")
    await agent.transfer(second.id, "15002")
    await agent.transfer(second.id, "15002")
    assert later.struck == 2


async def test_notifications_are_duplicated_reordered_and_lost(
    sim: Simulator, agent: AgentClient, call: Call
) -> None:
    sim.faults.add("duplicate_notification", operation="Held")
    sim.operate(call.id, "15000", "Hold")
    sim.faults.add("reorder_notification")
    sim.operate(call.id, "15000", "Retrieve")
    sim.operate(call.id, "15000", "Hold")
    lost = sim.faults.add("lose_notification", operation="Established")
    sim.operate(call.id, "15000", "Retrieve")
    sim.hangup(call.id, "15000")
    order = [one["data"]["call"]["state"] for one in await seen(agent)]
    assert order == ["Held", "Held", "Held", "Established", "Released"]
    assert lost.struck == 1
    assert [one.lost for one in sim.truth.published if one.agent == "15000"][-2:] == [True, False]


@pytest.mark.parametrize("kind", ["lose_response", "cut_response", "garble_response", "http_error"])
async def test_a_harmed_response_is_delivered_again_with_ack(
    sim: Simulator, agent: AgentClient, call: Call, kind: Any
) -> None:
    sim.hangup(call.id, "15000")
    fault = sim.faults.add(kind, with_events=True)
    try:
        status, body = await agent.connect_raw(ack=0)
        assert status == 503 or kind == "garble_response"
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)
    except BROKEN:
        assert kind in ("lose_response", "cut_response")
    assert fault.struck == 1
    assert [one["data"]["call"]["state"] for one in await seen(agent)] == ["Released"]


async def test_a_lost_response_is_lost_without_ack(sim: Simulator, agent: AgentClient) -> None:
    await agent.open(ack=False)
    sim.place_call("15001", "15000")
    sim.faults.add("lose_response", with_events=True)
    with pytest.raises(BROKEN):
        await agent.connect(hold_ms=0)
    assert events(await agent.connect(hold_ms=0)) == []
    assert [one.responses for one in sim.truth.sessions[agent.client_id].messages] == [0]


async def test_a_lost_request_changes_nothing(sim: Simulator, agent: AgentClient, call: Call) -> None:
    sim.hangup(call.id, "15000")
    sim.faults.add("lose_request")
    with pytest.raises(BROKEN):
        await agent.connect(ack=1)
    assert len(await seen(agent)) == 1


async def test_duplicated_and_reversed_events(sim: Simulator, agent: AgentClient, call: Call) -> None:
    sim.operate(call.id, "15000", "Hold")
    sim.operate(call.id, "15000", "Retrieve")
    sim.faults.add("reverse_events")
    assert states(await agent.connect(ack=0, hold_ms=0)) == ["Established", "Held"]
    sim.faults.add("duplicate_events")
    assert states(await agent.connect(ack=0, hold_ms=0)) == ["Held", "Held", "Established", "Established"]


async def test_a_delayed_response(sim: Simulator, agent: AgentClient, call: Call) -> None:
    fault = sim.faults.add("delay_response", seconds=1.0)
    delayed = agent.hold(ack=0, hold_ms=0)
    await sim.until(lambda: fault.struck)
    await agent.get("/api/v2/me")
    assert not delayed.done()
    assert (await delayed)[0] == 200


async def test_a_connection_closed_after_its_response(sim: Simulator, agent: AgentClient, call: Call) -> None:
    fault = sim.faults.add("close_after_response")
    cookies = agent.http.cookie_jar.filter_cookies(URL(sim.url)).output(header="", sep=";").strip()
    body = json.dumps([agent.connect_message(hold_ms=0) | {"clientId": agent.client_id, "id": "x"}])
    head = (
        f"POST /api/v2/notifications HTTP/1.1\r\nHost: sim\r\nCookie: {cookies}\r\n"
        f"Authorization: {agent.http.headers['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    writer.write((head + body).encode())
    async with asyncio.timeout(20):
        response = await reader.read()
    writer.close()
    assert response.startswith(b"HTTP/1.1 200")
    assert json.loads(response.partition(b"\r\n\r\n")[2])[0]["successful"] is True
    assert fault.struck == 1


@pytest.mark.parametrize("reconnect", ["retry", "handshake", "none"])
async def test_advice(sim: Simulator, agent: AgentClient, call: Call, reconnect: str) -> None:
    sim.faults.add("advice", reconnect=reconnect, interval_ms=70)
    (reply,) = await agent.connect(ack=0, hold_ms=0)
    assert reply["advice"]["reconnect"] == reconnect
    assert reply["advice"]["interval"] == 70
    assert reply["successful"] is (reconnect == "retry")
    assert bool(sim.bayeux.sessions) is (reconnect == "retry")


async def test_sessions_end(sim: Simulator, agent: AgentClient, call: Call) -> None:
    sim.faults.add("kill_session")
    (reply,) = await agent.connect(ack=0)
    assert reply["error"].startswith("402")
    await agent.open()
    sim.faults.add("server_disconnect")
    messages = await agent.connect(ack=0, hold_ms=0)
    assert [one["channel"] for one in messages] == ["/meta/connect", "/meta/disconnect"]
    assert not sim.bayeux.sessions
    await agent.open()
    poll = agent.hold(ack=0)
    await agent.held()
    assert sim.kill_session("15000") == 1
    assert json.loads((await poll)[1])[0]["advice"]["reconnect"] == "handshake"
    assert sim.faults.struck["kill_session"] == 2


async def test_a_restart_forgets_every_session(sim: Simulator, agent: AgentClient, call: Call) -> None:
    poll = agent.hold(ack=0)
    await agent.held()
    sim.restart()
    with pytest.raises(BROKEN):
        await poll
    assert (await agent.connect_raw())[0] == 403
    await agent.get("/api/v2/me")
    assert (await agent.connect(ack=0))[0]["error"].startswith("402")
    assert (await agent.get("/api/v2/me/calls?fields=*"))[1]["calls"][0]["id"] == call.id


async def test_stop_and_start_keep_the_port_and_the_calls(
    sim: Simulator, agent: AgentClient, call: Call
) -> None:
    url = sim.url
    await sim.stop()
    with pytest.raises(BROKEN):
        await agent.get("/api/v2/me")
    await sim.start()
    assert sim.url == url
    assert len((await agent.get("/api/v2/me/calls?fields=*"))[1]["calls"]) == 1


@pytest.mark.parametrize(
    "element",
    [
        b"not json",
        b'{"channel":"/v2/me/calls","data":"' + b"x" * 2**20 + b'"}',
        b'{"channel":"/v2/me/calls","data":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\xff\xfe",
    ],
)
async def test_anything_can_be_injected(sim: Simulator, agent: AgentClient, element: bytes) -> None:
    await agent.open()
    sim.inject("15000", element)
    assert element in (await agent.connect_raw(ack=0))[1]
    assert sim.faults.struck["inject"] == 1
    json.dumps(sim.truth.as_json())


async def test_many_sessions_are_held(sim: Simulator) -> None:
    sim.max_interval_ms = 60_000
    async with agent_client(sim, "15000") as first, agent_client(sim, "15001") as second:
        for one in (first, second):
            await one.open()
        polls = [first.hold(ack=0), second.hold(ack=0)]
        await first.held()
        await second.held()
        sim.place_call("15000", "15001")
        assert [states(json.loads(body)) for _, body in await asyncio.gather(*polls)] == [
            ["Dialing"],
            ["Ringing"],
        ]
