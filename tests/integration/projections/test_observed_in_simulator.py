"""Observed transfers against the simulator's own truth: precision and recall."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from projecting import caught_up
from pydantic import SecretStr

from service.cometd import shared_http
from service.config import Agent
from service.log import EventLog
from service.postgres import Database
from service.projections import Engine, Queries, Rebuilder, catalogue
from service.recorder import Access, Accesses, Recorder, Vault
from service.simulator import Scenario, Simulator


class Happened(NamedTuple):
    """A transfer, as the simulator knows it; `reason` as it was given with it."""

    call_id: str
    agent: str
    destination: str


def truth_of(simulator: Simulator) -> tuple[Counter[Happened], Counter[Happened]]:
    """All transfers that were carried out, and those that leave no evidence in what GWS says."""
    happened = Counter(Happened(one.call_id, one.agent, one.destination) for one in simulator.truth.transfers)
    unseen: Counter[Happened] = Counter()
    for one in simulator.truth.transfers:
        if one.destination in simulator.agents:
            continue
        earlier = [
            message
            for message in simulator.truth.published
            if message.call_id == one.call_id
            and message.agent == one.agent
            and message.state not in {"Released", "Error"}  # an error says nothing of the call's data
        ]
        reason = dict(one.user_data).get("TransferReason")
        was = f'"TransferReason":"{reason}"'.encode()
        others = {party.number for party in simulator.calls[one.call_id].legs} & simulator.agents.keys()
        inside = simulator.calls[one.call_id].ani is None and len(others) > 1
        if not inside and (reason is None or was in earlier[-1].body):
            unseen[Happened(one.call_id, one.agent, one.destination)] += 1
    for done in simulator.truth.commands:
        if done.operation == "CompleteTransfer" and done.executed and done.call_id is not None:
            consult = next(
                call
                for call in simulator.calls.values()
                if call.parent
                and call.parent.id == done.call_id
                and call.legs[0].number == done.agent
                and call.legs[1].number != done.agent
            )
            happened[Happened(done.call_id, done.agent, consult.legs[1].number)] += 1
    return happened, unseen


def destination_known(row: dict[str, Any], happened: Counter[Happened]) -> Happened:
    """What a row claims; where it says that the destination is not in the record, any outside counts."""
    claim = Happened(row["call_id"], row["agent"], row["destination"])
    if claim.destination is not None:
        return claim
    outside = [one for one in happened if one[:2] == claim[:2] and not one.destination.startswith("15")]
    return outside[0] if outside else claim


@pytest.mark.parametrize("calls", [60, pytest.param(1_500, marks=pytest.mark.long)])
async def test_observed_transfers_are_those_that_happened(
    database: Database, log: EventLog, tmp_path: Path, calls: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(seed=11, agent_count=40))
        http = await stack.enter_async_context(shared_http())
        agents = [Agent(user=number, password=SecretStr(f"secret-{number}")) for number in simulator.agents]
        accesses = Accesses(lambda agent: Access.of(agent, http, simulator.url, timeout_s=5), agents)
        recorder = Recorder(database, log, accesses, Vault(tmp_path), simulator.url)
        recorder.start()
        await simulator.until(lambda: len(simulator.truth.sessions) >= len(accesses), within_s=20)
        async with asyncio.timeout(120):
            await Scenario(world=simulator, calls=calls, calls_per_s=30, speed=3000, transfer_share=0.6).run()
        await simulator.until(
            lambda: all(
                message.acknowledged_at is not None
                for session in simulator.truth.sessions.values()
                for message in session.messages
            ),
            within_s=30,
        )
        await recorder.stop()
        happened, unseen = truth_of(simulator)
    engine = Engine(database, log, catalogue())
    engine.loop.start()
    await caught_up(engine, log)
    await engine.loop.stop()
    rows = await Queries(database).transfers(limit=100_000)
    claimed = Counter(destination_known(row, happened) for row in rows)
    right, evident = claimed & happened, happened - unseen
    precision, recall = right.total() / claimed.total(), (right & evident).total() / evident.total()
    with capsys.disabled():
        print(  # noqa: T201 the figures are what the test is for
            f"\n{happened.total()} transfers, {claimed.total()} observed: precision {precision:.3f}, "
            f"recall {recall:.3f} where there is evidence, {right.total() / happened.total():.3f} of all "
            f"({unseen.total()} leave none)"
        )
    assert claimed - happened == Counter()
    assert evident - claimed == Counter()
    report = await Rebuilder(database, log, shares=2).rebuild([p.name for p in catalogue()], check=True)
    assert not any((report.different or {}).values())
