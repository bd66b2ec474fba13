import asyncio
import json

import pytest
from raw_agent import AgentClient, agent_client, events, states

from service.simulator import Simulator


async def test_an_event_ends_a_held_poll(sim: Simulator, agent: AgentClient) -> None:
    await agent.open("/v2/me/calls")
    poll = agent.hold(ack=0)
    await agent.held()
    sim.place_call("15001", "15000")
    _, body = await poll
    answers = json.loads(body)
    assert states(answers) == ["Ringing"]
    assert answers[-1]["channel"] == "/meta/connect"
    assert answers[-1]["ext"] == {"ack": 1}


async def test_events_may_stand_after_the_connect_reply(sim: Simulator, agent: AgentClient) -> None:
    sim.events_first = False
    await agent.open()
    sim.place_call("15001", "15000")
    assert (await agent.connect(hold_ms=0))[0]["channel"] == "/meta/connect"


async def test_a_poll_without_events_ends_after_the_timeout(sim: Simulator, agent: AgentClient) -> None:
    sim.timeout_ms = 50
    await agent.open()
    assert events(await agent.connect(ack=0)) == []


async def test_unacknowledged_events_are_delivered_again_first_and_in_order(
    sim: Simulator, agent: AgentClient
) -> None:
    await agent.open("/v2/me/calls")
    call = sim.place_call("15001", "15000")
    first = await agent.connect(ack=0)
    sim.answer(call.id, "15000")
    again = await agent.connect(ack=0)
    assert states(first) == ["Ringing"]
    assert states(again) == ["Ringing", "Established"]
    assert events(again)[0] == events(first)[0]
    assert again[-1]["ext"]["ack"] == first[-1]["ext"]["ack"] + 1
    without_ext = await agent.connect(hold_ms=0)
    assert states(without_ext) == ["Ringing", "Established"]
    assert states(await agent.connect(ack=2, hold_ms=0)) == []
    assert states(await agent.connect(ack=0, hold_ms=0)) == []
    delivered = sim.truth.sessions[agent.client_id].messages
    assert [one.responses for one in delivered] == [3, 2]
    assert all(one.acknowledged_at for one in delivered)


async def test_without_ack_events_leave_with_any_response(sim: Simulator, agent: AgentClient) -> None:
    reply = await agent.handshake(ack=False)
    assert "ext" not in reply
    await agent.subscribe("/v2/me/calls")
    sim.place_call("15001", "15000")
    assert states(await agent.subscribe("/v2/me/devices")) == ["Ringing"]
    assert states(await agent.connect(hold_ms=0)) == []


async def test_with_ack_events_leave_with_connect_responses_only(sim: Simulator, agent: AgentClient) -> None:
    await agent.open()
    sim.place_call("15001", "15000")
    assert events(await agent.subscribe("/v2/me/devices")) == []
    assert states(await agent.connect(ack=0)) == ["Ringing"]


async def test_the_ack_extension_can_be_off_or_an_object(sim: Simulator, agent: AgentClient) -> None:
    sim.ack_as_object = True
    assert (await agent.handshake())["ext"] == {"ack": {"enabled": True, "batch": 0}}
    sim.ack = False
    assert "ext" not in await agent.handshake()


async def test_without_the_browser_cookie_the_session_is_not_found(
    sim: Simulator, agent: AgentClient
) -> None:
    await agent.open()
    agent.http.cookie_jar.clear(lambda cookie: cookie.key == "BAYEUX_BROWSER")
    (connect,) = await agent.connect(hold_ms=0)
    assert connect["error"] == "402::Unknown client"
    assert connect["advice"]["reconnect"] == "handshake"
    (subscribe,) = await agent.subscribe("/v2/me/calls")
    assert subscribe["error"].startswith("402")
    assert "advice" not in subscribe


async def test_an_older_poll_is_answered_with_an_http_error(sim: Simulator, agent: AgentClient) -> None:
    await agent.open()
    older = agent.hold(ack=0)
    await agent.held()
    newer = agent.hold(ack=0)
    assert await older == (500, b"")
    sim.place_call("15001", "15000")
    status, body = await newer
    assert (status, states(json.loads(body))) == (200, ["Ringing"])


async def test_two_sessions_of_one_browser_may_hold_one_poll(sim: Simulator, agent: AgentClient) -> None:
    await agent.open()
    poll = agent.hold(ack=0)
    await agent.held()
    first = agent.client_id
    await agent.open()
    assert agent.client_id != first
    (reply,) = await agent.connect(ack=0)
    assert reply["advice"]["multiple-clients"] is True
    assert reply["advice"]["interval"] == 2000
    sim.kill_session("15000")
    await poll


async def test_a_connect_that_is_not_alone_is_never_held(agent: AgentClient) -> None:
    await agent.handshake()
    subscribe = {"channel": "/meta/subscribe", "subscription": "/v2/me/*"}
    subscribed, connected = await agent.bayeux(subscribe, agent.connect_message(ack=0))
    assert subscribed["subscription"] == "/v2/me/*"
    assert connected["ext"] == {"ack": 1}


async def test_a_silent_session_expires(agent: AgentClient, sim: Simulator) -> None:
    sim.max_interval_ms = 40
    await agent.open()
    await sim.until(lambda: not sim.bayeux.sessions)
    assert sim.truth.sessions[agent.client_id].ended_because == "expired"
    assert (await agent.connect(ack=0))[0]["error"].startswith("402")


async def test_a_held_session_does_not_expire(agent: AgentClient, sim: Simulator) -> None:
    await agent.open()
    poll = agent.hold(ack=0)
    await agent.held()
    sim.max_interval_ms = 30
    async with agent_client(sim, "15001") as other:
        await other.handshake()
        await sim.until(lambda: len(sim.bayeux.sessions) == 1)
    assert not poll.done()
    sim.place_call("15001", "15000")
    assert states(json.loads((await poll)[1])) == ["Ringing"]


async def test_disconnect_and_unsubscribe(sim: Simulator, agent: AgentClient) -> None:
    await agent.open("/v2/me/calls")
    await agent.bayeux({"channel": "/meta/unsubscribe", "subscription": "/v2/me/calls"})
    sim.place_call("15001", "15000")
    assert events(await agent.connect(ack=0, hold_ms=0)) == []
    poll = agent.hold(ack=0)
    await agent.held()
    (reply,) = await agent.bayeux({"channel": "/meta/disconnect"})
    assert reply["successful"] is True
    assert json.loads((await poll)[1])[0]["advice"]["reconnect"] == "none"
    assert not sim.bayeux.sessions


@pytest.mark.parametrize("pattern", ["/**", "/v2/**", "/v2/me/*", "/v2/me/**", "/v2/me/calls"])
async def test_subscription_patterns(sim: Simulator, agent: AgentClient, pattern: str) -> None:
    await agent.open(pattern)
    sim.place_call("15001", "15000")
    assert states(await agent.connect(ack=0)) == ["Ringing"]


@pytest.mark.parametrize("pattern", ["/*", "/v2/*", "/v2/me/devices", "/v2/me/calls/*"])
async def test_subscription_patterns_that_do_not_match(
    sim: Simulator, agent: AgentClient, pattern: str
) -> None:
    await agent.open(pattern)
    sim.place_call("15001", "15000")
    assert states(await agent.connect(ack=0, hold_ms=0)) == []


async def test_a_body_that_is_no_array_is_refused(agent: AgentClient) -> None:
    assert (await agent.post("/api/v2/notifications", b'{"channel":"/meta/handshake"}'))[0] == 400
    assert (await agent.post("/api/v2/notifications", b"[{"))[0] == 400


async def test_a_dead_poll_swallows_the_next_event_without_ack(sim: Simulator, agent: AgentClient) -> None:
    await agent.open(ack=False)
    poll = agent.hold()
    await agent.held()
    poll.cancel()
    await asyncio.wait([poll])
    call = sim.place_call("15001", "15000")
    await sim.until(lambda: not any(one.held for one in sim.bayeux.sessions_of("15000")))
    sim.answer(call.id, "15000")
    assert states(await agent.connect(hold_ms=0)) == ["Established"]
