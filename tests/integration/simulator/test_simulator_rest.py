import json
from pathlib import Path

import pytest
from raw_agent import AgentClient, agent_client, events, states

from service.simulator import Simulator

SAMPLES = Path(__file__).parents[2] / "samples"


def elements(body: bytes) -> list[bytes]:
    """Cut the elements of a JSON array out as they stand."""
    text, decoder, found, at = body.decode(), json.JSONDecoder(), [], 1
    while at < len(text) - 1:
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end].encode())
        at = end + 1
    return found


@pytest.mark.parametrize("number", [1, 2])
async def test_the_samples_come_byte_for_byte(sim: Simulator, agent: AgentClient, number: int) -> None:
    call = sim.place_sample_calls()[number - 1]
    await agent.open("/v2/me/calls")
    request = (SAMPLES / f"sample{number}-request.json").read_bytes()
    status, answer = await agent.post(f"/api/v2/me/calls/{call.id}", request)
    assert status == 200
    assert answer == (SAMPLES / f"sample{number}-response.json").read_bytes()
    _, body = await agent.connect_raw(ack=0)
    released = elements(body)[0]
    assert released == (SAMPLES / f"sample{number}-notification.json").read_bytes().rstrip()
    assert [one.body for one in sim.truth.sessions[agent.client_id].messages] == [released]


async def test_another_transfer_of_a_sample_call_does_not_say_the_sample(
    sim: Simulator, agent: AgentClient
) -> None:
    call = sim.place_sample_calls()[1]
    await agent.open("/v2/me/calls")
    await agent.transfer(call.id, "15002", userData={"TransferReason": "Billing"})
    (released,) = events(await agent.connect(ack=0))
    assert released["data"]["call"]["userData"] == {"TransferReason": "Billing"}


async def test_what_each_agent_sees_of_a_transfer(sim: Simulator, agent: AgentClient) -> None:
    call = sim.place_call("15001", "15000", user_data={"Segment": "Gold"})
    sim.answer(call.id, "15000")
    async with agent_client(sim, "15001") as caller, agent_client(sim, "15002") as target:
        for one in (agent, caller, target):
            await one.open("/v2/me/calls")
        assert await agent.transfer(call.id, "15002", userData={"Reason": "Sales"}) == (
            200,
            b'{"statusCode":0}',
        )
        await sim.until(lambda: call.live[-1].state == "Established")
        (released,) = events(await agent.connect(ack=0))
        seen_by_target = events(await target.connect(ack=0))
        seen_by_caller = events(await caller.connect(ack=0))
    leg = released["data"]["call"]
    assert leg["state"] == "Released"
    assert leg["capabilities"] == []
    assert leg["userData"] == {"Segment": "Gold", "Reason": "Sales"}
    assert [party["phoneNumber"] for party in leg["participants"]] == ["15001"]
    assert [one["data"]["call"]["state"] for one in seen_by_target] == ["Ringing", "Established"]
    assert {one["data"]["call"]["id"] for one in seen_by_target} == {call.id}
    assert seen_by_target[0]["data"]["call"]["userData"] == leg["userData"]
    assert [one["data"]["notificationType"] for one in seen_by_caller] == [
        "ParticipantsUpdated",
        "AttachedDataChanged",
    ]
    assert seen_by_caller[0]["data"]["call"]["participants"][0]["phoneNumber"] == "15002"
    (transfer,) = sim.truth.transfers_of(call.id)
    assert (transfer.agent, transfer.destination) == ("15000", "15002")
    (command,) = sim.truth.commands
    assert (command.executed, command.answer_status) == (True, 200)
    told = next(one for one in sim.truth.published if one.state == "Released")
    assert command.answered_at is not None
    assert transfer.at <= command.answered_at <= told.at


async def test_credentials_and_cookies(sim: Simulator) -> None:
    denied = {"statusCode": 20, "statusMessage": "Access denied"}
    async with agent_client(sim, "15000", password="wrong") as stranger:
        assert await stranger.get("/api/v2/me") == (403, denied)
        status, version = await stranger.get("/api/v2/diagnostics/version")
        assert (status, version["statusCode"]) == (200, 0)
    async with agent_client(sim, "15000") as agent:
        _, me = await agent.get("/api/v2/me?subresources=devices,calls")
        assert me["user"]["devices"][0]["id"] == "631608b3-ceb1-472b-ba05-2ae39555b0d1"
        assert me["user"]["calls"] == []
        sim.expire_http_session("15000")
        status, body = await agent.operate("x", "Answer")
        assert (status, json.loads(body)) == (403, denied)
        assert (await agent.connect_raw())[0] == 403
        assert (await agent.get("/api/v2/me"))[0] == 200
        assert (await agent.operate("x", "Answer"))[0] == 404


async def test_csrf(sim: Simulator, agent: AgentClient) -> None:
    sim.csrf = True
    status, body = await agent.operate("x", "Answer")
    assert (status, body) == (403, b"Missing or invalid Csrf token")
    await agent.get("/api/v2/me")
    old = agent.csrf
    assert (await agent.operate("x", "Answer"))[0] == 404
    await agent.open()
    sim.expire_http_session("15000")
    await agent.get("/api/v2/me")
    assert agent.csrf != old
    agent.csrf = old
    assert (await agent.operate("x", "Answer"))[0] == 403


async def test_reading_calls(sim: Simulator, agent: AgentClient) -> None:
    call = sim.place_call("0301234567", "15000", user_data={"Nested": {"a": 1}})
    _, uris = await agent.get("/api/v2/me/calls")
    assert uris["uris"] == [f"{sim.url}/api/v2/me/calls/{call.id}"]
    _, full = await agent.get("/api/v2/me/calls?fields=*")
    _, one = await agent.get(f"/api/v2/me/calls/{call.id}")
    assert full["calls"] == [one["call"]]
    assert one["call"]["callType"] == "Inbound"
    assert one["call"]["userData"] == {"Nested": {"a": 1}}
    assert "SingleStepTransfer" not in one["call"]["capabilities"]
    sim.answer(call.id, "15000")
    sim.hangup(call.id, "15000")
    assert (await agent.get("/api/v2/me/calls?fields=*"))[1]["calls"] == []
    status, missing = await agent.get(f"/api/v2/me/calls/{call.id}")
    assert (status, missing["statusCode"]) == (404, 6)


@pytest.mark.parametrize(
    ("body", "status_code"),
    [
        (b"not json", 2),
        (b"{}", 1),
        (b'{"operationName":"SingleStepTransfer"}', 1),
        (b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":7}}', 2),
        (b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":"x"}}', 2),
        (b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":"15001"}}', 2),
        (b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":"15999"}}', 4),
        (b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":"15002"},"userData":[]}', 2),
        (b'{"operationName":"Answer"}', 3),
        (b'{"operationName":"Fly"}', 2),
        (b'{"operationName":"UpdateUserData"}', 1),
    ],
)
async def test_refusals_change_nothing(
    sim: Simulator, agent: AgentClient, body: bytes, status_code: int
) -> None:
    call = sim.place_call("15001", "15000")
    sim.answer(call.id, "15000")
    before = len(sim.truth.published)
    status, answer = await agent.post(f"/api/v2/me/calls/{call.id}", body)
    assert status >= 400
    assert json.loads(answer)["statusCode"] == status_code
    assert len(sim.truth.published) == before
    assert not sim.truth.transfers
    sim.errors_with_200 = True
    assert (await agent.post(f"/api/v2/me/calls/{call.id}", body))[0] == 200


async def test_the_other_operations(sim: Simulator, agent: AgentClient) -> None:
    await agent.open("/v2/me/calls")
    call = sim.place_call("15001", "15000")
    for operation in ("Answer", "Hold", "Retrieve"):
        assert (await agent.operate(call.id, operation))[0] == 200
    await agent.operate(call.id, "AttachUserData", userData={"k": 1})
    await agent.operate(call.id, "AttachUserData", userData={"k": 2})
    assert b'"userData":{"k":1,"k":2}' in sim.truth.published[-1].body
    await agent.operate(call.id, "UpdateUserData", userData={"k": 3})
    assert b'"userData":{"k":3}' in sim.truth.published[-1].body
    await agent.operate(call.id, "SingleStepConference", destination={"phoneNumber": "15002"})
    await sim.until(lambda: len(call.live) == 3 and call.live[2].state == "Established")
    await agent.operate(call.id, "RemoveParticipantFromConference", participant="15002")
    await agent.operate(call.id, "Hangup")
    seen = await agent.connect(ack=0)
    assert states(seen) == ["Ringing", "Established", "Held"] + ["Established"] * 6 + ["Released"]
    assert not call.live


async def test_a_two_step_transfer(sim: Simulator, agent: AgentClient) -> None:
    call = sim.place_call("15001", "15000")
    sim.answer(call.id, "15000")
    await agent.open("/v2/me/calls")
    await agent.operate(call.id, "InitiateTransfer", destination={"phoneNumber": "15002"})
    consult = call.consult
    assert consult is not None
    await sim.until(lambda: consult.live[1].state == "Established")
    await agent.operate(call.id, "CompleteTransfer")
    seen = [
        (one["data"]["call"]["id"], one["data"]["call"]["state"])
        for one in events(await agent.connect(ack=0))
    ]
    assert seen == [
        (call.id, "Held"),
        (consult.id, "Dialing"),
        (consult.id, "Established"),
        (call.id, "Released"),
        (consult.id, "Released"),
    ]
    assert [leg.number for leg in call.live] == ["15001", "15002"]
    assert not consult.live
    assert not sim.truth.transfers


async def test_dial(sim: Simulator, agent: AgentClient) -> None:
    await agent.open("/v2/me/calls")
    path = f"/api/v2/me/devices/{sim.agents['15000'].device_id}/calls"
    dial = {"operationName": "Dial", "destination": {"phoneNumber": "15003"}}
    assert (await agent.post(path, dial))[0] == 200
    (call,) = sim.calls.values()
    await sim.until(lambda: call.live[1].state == "Established")
    assert states(await agent.connect(ack=0)) == ["Dialing", "Established"]


async def test_contact_center_session(sim: Simulator, agent: AgentClient) -> None:
    await agent.open("/v2/me/devices")
    start = {"operationName": "StartContactCenterSession", "channels": ["voice"]}
    assert (await agent.post("/api/v2/me", start))[0] == 200
    (event,) = events(await agent.connect(ack=0))
    assert event["data"]["devices"][0]["deviceState"] == "Active"
    assert (await agent.post("/api/v2/me", {"operationName": "EndContactCenterSession"}))[0] == 200
    await sim.until(lambda: not sim.agents["15000"].logged_in)
    assert (await agent.operate("x", "Answer"))[0] == 403


async def test_the_old_form() -> None:
    async with Simulator(form="8.5.0") as sim, agent_client(sim, "15000") as agent:
        await agent.open("/v2/me/calls")
        call = sim.place_call("15001", "15000")
        (event,) = events(await agent.connect(ack=0))
        leg = event["data"]["call"]
        assert leg["id"] == call.conn_id
        assert "connId" not in leg
        assert leg["participants"] == ["15001"]
        assert "metrics" not in event["data"]
        assert (await agent.get(f"/api/v2/me/calls/{call.conn_id}"))[0] == 200


async def test_control_over_http(sim: Simulator, agent: AgentClient) -> None:
    _, placed = await agent.post("/sim/calls", {"caller": "15001", "agent": "15000", "call_id": "C1"})
    assert json.loads(placed)["id"] == "C1"
    assert (await agent.post("/sim/calls/C1", {"agent": "15000", "operationName": "Answer"}))[0] == 200
    assert (await agent.post("/sim/faults", {"kind": "silence", "call": "C1"}))[0] == 200
    await agent.transfer("C1", "15002")
    _, faults = await agent.get("/sim/faults")
    assert faults["struck"] == {"silence": 1}
    _, truth = await agent.get("/sim/truth?part=transfers,commands")
    assert truth["transfers"] == []
    assert truth["commands"][0]["fault"] == "silence"
    assert (await agent.post("/sim/faults", {"kind": "nonsense"}))[0] == 400
    assert (await agent.post("/sim/calls", {"caller": "15001", "agent": "15999"}))[0] == 400
    assert (await agent.post("/sim/sample-calls", b""))[0] == 200
    assert len((await agent.get("/sim/calls"))[1]) == 3
    assert (await agent.get("/sim/truth"))[0] == 200
