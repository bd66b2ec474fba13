import asyncio
import os
import signal
import sys
from collections import Counter

import aiohttp

from service.simulator import Scenario, Simulator
from service.simulator.scenario import OUTCOMES, REASONS


async def test_every_call_ends_and_the_truth_has_the_transfers() -> None:
    async with Simulator(seed=3, agent_count=60, csrf=True) as sim:
        scenario = Scenario(world=sim, calls=80, calls_per_s=200, speed=6000)
        async with asyncio.timeout(30):
            await scenario.run()
        assert scenario.happened["placed"] + scenario.happened["turned away"] == 80
        assert scenario.happened["placed"] > 40
        assert not any(call.live for call in sim.calls.values())
        assert not sim.faults.waiting
        assert len(scenario.happened.keys() & OUTCOMES.keys()) >= 5
        assert sim.truth.transfers
        executed = [
            one for one in sim.truth.commands if one.operation == "SingleStepTransfer" and one.executed
        ]
        assert len(executed) == len(sim.truth.transfers)
        assert all(agent.logged_in for agent in sim.agents.values())
        assert sorted(scenario._free) == sorted(sim.agents)


def test_plans_depend_on_the_seed_alone() -> None:
    first, second, other = (Scenario(world=Simulator(seed=seed)) for seed in (1, 1, 2))
    assert [first.plan(n) for n in range(50)] == [second.plan(n) for n in range(50)]
    assert [first.plan(n) for n in range(50)] != [other.plan(n) for n in range(50)]


def test_plans_hold_every_reason_and_outcome_in_uneven_shares() -> None:
    scenario = Scenario(world=Simulator(seed=1))
    hops = [hop for n in range(4000) for hop in scenario.plan(n).hops]
    reasons = Counter(hop.reason for hop in hops)
    assert reasons.keys() == REASONS.keys()
    assert reasons["Escalation"] > 2 * reasons["Retention"] > 2 * reasons["DataProtection"]
    assert {hop.outcome for hop in hops} == OUTCOMES.keys()
    assert any(hop.back for hop in hops)


async def test_a_process_of_its_own() -> None:
    code = "from service.simulator import run; run(busy=True, calls_per_s=50, agent_count=20)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        url = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession() as http:
            calls: list[object] = []
            while not calls:
                async with http.get(url + "/sim/calls") as response:
                    calls = await response.json()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
