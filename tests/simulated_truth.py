"""What analysts should be told of a simulated contact centre, by the simulator's own truth alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from service.simulator import Simulator


@dataclass(frozen=True)
class Hop:
    """A transfer that was carried out. `talk_s` is None where the agent's leg had not talked."""

    call_id: str
    agent: str
    destination: str
    reason: str | None
    talk_s: float | None
    index: int
    ping_pong: bool


def hops_of(simulator: Simulator) -> list[Hop]:
    """Every transfer, in the order of time; its reason is the one that the call carried then."""
    reasons: dict[str, str] = {}
    had: dict[str, list[str]] = {}
    hops: list[Hop] = []
    for done in sorted(simulator.truth.commands, key=lambda one: one.at):
        if not done.executed or done.call_id is None:
            continue
        call_id, given = done.call_id, json.loads(done.body or b"{}")
        if reason := given.get("userData", {}).get("TransferReason"):
            reasons[call_id] = reason
        if done.operation == "SingleStepTransfer":
            destination = given["destination"]["phoneNumber"]
        elif done.operation == "CompleteTransfer":
            destination = consulted(simulator, call_id, done.agent)
        else:
            continue
        before = had.setdefault(call_id, [])
        ping_pong = destination in before
        before += [done.agent, destination]
        index = 1 + sum(hop.call_id == call_id for hop in hops)
        talk = talk_before(simulator, call_id, done.agent, done.at)
        hops.append(Hop(call_id, done.agent, destination, reasons.get(call_id), talk, index, ping_pong))
    single = [
        one for one in simulator.truth.commands if one.executed and one.operation == "SingleStepTransfer"
    ]
    assert len(single) == len(simulator.truth.transfers)
    return hops


def consulted(simulator: Simulator, call_id: str, agent: str) -> str:
    """Whom an agent had called before completing the transfer of a call."""
    return next(
        call.legs[1].number
        for call in simulator.calls.values()
        if call.parent and call.parent.id == call_id and call.legs[0].number == agent
    )


def talk_before(simulator: Simulator, call_id: str, agent: str, at: float) -> float | None:
    """Seconds from the agent's first word to the release that the command brought about, by GWS's clock."""
    established: int | None = None
    for message in simulator.truth.published:
        if (message.call_id, message.agent) != (call_id, agent):
            continue
        told = json.loads(message.body)["data"]
        if "metrics" not in told:
            continue  # an error, not a state
        millis = told["metrics"]["eventProcessing"]["serverGenerationTimestamp"]
        if message.state == "Released":
            if message.at >= at:
                return None if established is None else (millis - established) / 1_000
            established = None
        elif message.state in {"Established", "Held"} and established is None:
            established = millis
    return None


def handled_calls(simulator: Simulator) -> set[str]:
    """Calls on which an agent talked, consult calls left out."""
    return {
        call.id
        for call in simulator.calls.values()
        if call.parent is None
        and any(leg.device_id is not None and leg.established_at is not None for leg in call.legs)
    }


def lengths(hops: list[Hop]) -> Counter[str]:
    """How many transfers each call had."""
    return Counter(hop.call_id for hop in hops)


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated as SQL's percentile_cont does."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    for (low, first), (_, second) in pairwise(enumerate(ordered)):
        if low <= place < low + 1:
            return first + (second - first) * (place - low)
    return ordered[-1]
