"""Finding, in what GWS says of one call, the transfers that nobody commanded through us. Pure.

GWS names no transfer: an agent's leg is Released in the same way by a hang-up and by a transfer. What tells
them apart is what the other parties see. The rules, their grades and what they cannot find are written down
in `docs/observed-transfers.md`; the state of a call is plain JSON, so that it can be kept in a table.

Each agent's session tells its part in order, but one session may be seconds later than another. So a call
keeps what it was told that mattered, in the order of GWS's own time; what comes late is put in its place, and
the rules go over the whole again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

from service.gws import dialect
from service.log import rfc3339
from service.projections.notice import Notice

NAMESPACE = UUID("6f1c1c0e-6a2b-5c49-9a53-7d2b1f0c8e11")  # of our own choosing

TALKING, OVER = "talking", "over"
PHASES = dict.fromkeys(dialect.TALKING, TALKING) | dict.fromkeys(dialect.OVER, OVER)
"""What the rules tell apart; any other state is a phase of its own."""

LONGEST_MEMORY = (
    100  # things told of one call; of a longer one, what comes late is taken as if it came in time
)

Leg = dict[str, Any]
Told = dict[str, Any]
State = dict[str, Any]


class Grade(StrEnum):
    """What an observation rests on, the strongest first."""

    LEG_SEEN = "destination's leg seen"
    PARTICIPANTS = "the other party's participants changed"
    KEYS = "transfer keys came with the Released"


def beginning() -> State:
    """A call of which nothing is known yet."""
    return {"legs": {}, "dispatched": {}, "transfers": [], "conn_id": None, "told": []}


def dispatched(agent: str, position: int) -> Told:
    """A transfer by `agent` was commanded through us: his leaving the call is not to be observed."""
    return {"commanded": True, "agent": agent, "millis": None, "position": position}


def called_off(agent: str, position: int) -> Told:
    """The commanded transfer did not happen."""
    return {"commanded": False, "agent": agent, "millis": None, "position": position}


def noticed(
    state: State, agent: str | None, notice: Notice, position: int, at: datetime, *, reason_key: str
) -> Told | None:
    """What a notice tells; None if that is known already."""
    device = notice.device or notice.number or "unknown"
    phase = PHASES.get(notice.state or "", notice.state)
    reason = notice.user_data.get(reason_key)
    known = state["legs"].get(device)
    if (
        known is not None
        and known["phase"] == phase
        and known["reason"] == reason
        and known["with"] == notice.participants
        and (phase == OVER or known["consulting"] == notice.may_complete)
    ):
        return None
    return {
        "device": device,
        "number": notice.number,
        "agent": agent,
        "phase": phase,
        "with": notice.participants,
        "reason": reason,
        "consulting": notice.may_complete,
        "consult": notice.call_type == "Consult",
        "conn_id": notice.conn_id,
        "user_data": notice.user_data,
        "millis": notice.millis,
        "position": position,
        "at": rfc3339(at),
    }


def observe(state: State, call_id: str, told: Told) -> State:
    """The state of a call after it was told one more thing; `state` itself if that says nothing new."""
    before: list[Told] = state["told"]
    if told["millis"] is None:
        told["millis"] = before[-1]["millis"] if before else 0
    place = len(before)
    while place and before[place - 1]["millis"] > told["millis"]:
        place -= 1
    if place == len(before) or len(before) > LONGEST_MEMORY:
        after = step(state, call_id, told)
        return after if after is state else {**after, "told": [*before, told][-LONGEST_MEMORY - 1 :]}
    ordered = [*before[:place], told, *before[place:]]
    state = {**state, **beginning()}
    for one in ordered:
        state = step(state, call_id, one)
    return {**state, "told": ordered}


def step(state: State, call_id: str, told: Told) -> State:
    """The state after what was told next, in GWS's order."""
    if "commanded" in told:
        others = {agent: at for agent, at in state["dispatched"].items() if agent != told["agent"]}
        if told["commanded"]:
            others[told["agent"]] = told["position"]
        return {**state, "dispatched": others}
    device, phase = told["device"], told["phase"]
    before: Leg | None = state["legs"].get(device)
    if before is not None and is_stale(before, told):
        return state
    begins_anew = before is None or (before["phase"] == OVER and phase != OVER)
    leg: Leg = {
        "number": told["number"],
        "agent": told["agent"],
        "phase": phase,
        "with": told["with"],
        "reason": told["reason"],
        "consulting": told["consulting"],
        "talked": phase == TALKING,
        "millis": told["millis"],
        "position": told["position"],
        "gone_to": None,
    }
    if before is not None and not begins_anew:
        leg["talked"] = leg["talked"] or before["talked"]
        leg["gone_to"] = before["gone_to"]
        if phase == OVER:
            leg["consulting"] = before["consulting"]  # says nothing of it any more
    state = {
        **state,
        "legs": {**state["legs"], device: leg},
        "conn_id": told["conn_id"] or state["conn_id"],
    }
    if told["consult"]:
        return state
    context = Context(state, call_id, told)
    if before is None or begins_anew:
        return state if phase == OVER else context.arrival()
    if phase == OVER and before["phase"] != OVER:
        return context.departure(before)
    if before["with"] != leg["with"]:
        return context.exchange(before)
    return state


def is_stale(before: Leg, told: Told) -> bool:
    """Whether another session tells what this leg has left behind in the same millisecond."""
    return before["phase"] == OVER and told["phase"] != OVER and bool(0 < told["millis"] <= before["millis"])


class Context:
    """One thing told, and the call as it is with it."""

    def __init__(self, state: State, call_id: str, told: Told) -> None:
        self.state = state
        self.call_id = call_id
        self.told = told
        self.device: str = told["device"]
        self.number: str | None = told["number"]

    def arrival(self) -> State:
        """A leg appears; find whom it has replaced, if anybody."""
        number, company = self.number, set(self.told["with"])
        for transfer in self.state["transfers"]:
            if transfer["destination"] in {None, number} and transfer["grade"] != Grade.LEG_SEEN:
                left = self.state["legs"].get(transfer["device"])
                if left is not None and replaced(left, number, company):
                    return self._strengthen(transfer)
        candidates = [
            (device, leg)
            for device, leg in self.state["legs"].items()
            if device != self.device and leg["gone_to"] is None and replaced(leg, number, company)
        ]
        if not candidates:
            return self.state
        device, left = max(candidates, key=lambda one: (one[1]["millis"], one[1]["position"]))
        if not left["talked"]:
            return self._recalled(left)
        return self._found(device, left, Grade.LEG_SEEN, number)

    def departure(self, before: Leg) -> State:
        """A leg is released: a hang-up, unless something else says more."""
        leg = self.state["legs"][self.device]
        if leg["gone_to"] is not None:
            return self._evidence_of(self.device)
        if leg["reason"] is not None and leg["reason"] != before["reason"] and leg["talked"]:
            return self._found(self.device, leg, Grade.KEYS, None)
        return self.state

    def exchange(self, before: Leg) -> State:
        """The others on the call, as one party sees them, are others than before."""
        came = [number for number in self.told["with"] if number not in before["with"]]
        went = [number for number in before["with"] if number not in self.told["with"]]
        if len(came) != 1 or len(went) != 1:
            return self.state  # joined or left: a conference, or a party that hung up
        for device, leg in self.state["legs"].items():
            if leg["number"] == went[0] and device != self.device:
                known = [one for one in self.state["transfers"] if one["device"] == device]
                if leg["gone_to"] is not None:
                    if known and known[-1]["destination"] is None:
                        return self._strengthen(known[-1], Grade.PARTICIPANTS, came[0])
                    return self.state
                if not leg["talked"]:
                    return self.state  # rang in vain: a recall
                return self._found(device, leg, Grade.PARTICIPANTS, came[0])
        return self.state

    # What is found

    def _found(self, device: str, left: Leg, grade: Grade, destination: str | None) -> State:
        """`left` has transferred the call, and to `destination`, if that is known."""
        legs = {**self.state["legs"], device: {**left, "gone_to": destination or "unknown"}}
        transfers: list[dict[str, Any]] = self.state["transfers"]
        awaited = self.state["dispatched"]
        if left["agent"] in awaited:
            others = {agent: at for agent, at in awaited.items() if agent != left["agent"]}
            return {**self.state, "legs": legs, "dispatched": others}
        earlier = sum(one["device"] == device for one in transfers)
        transfer = {
            "transfer_id": str(uuid5(NAMESPACE, f"{self.call_id}/{device}/{earlier}")),
            "device": device,
            "agent": left["agent"],
            "from": left["number"],
            "destination": destination,
            "operation": "two-step" if left["consulting"] else "single-step",
            "grade": grade,
            "reason": self.told["reason"],
            "user_data": self.told["user_data"],
            "recalled": False,
            "at": self.told["at"],
            "evidence": sorted({left["position"], self.told["position"]}),
        }
        return {**self.state, "legs": legs, "transfers": [*transfers, transfer]}

    def _strengthen(
        self,
        transfer: Mapping[str, Any],
        grade: Grade = Grade.LEG_SEEN,
        destination: str | None = None,
    ) -> State:
        """Better evidence has come for a transfer that was found already."""
        better = {"grade": grade, "destination": destination or self.number}
        return self._replace(transfer, {**self._with_evidence(transfer), **better})

    def _evidence_of(self, device: str) -> State:
        for transfer in reversed(self.state["transfers"]):
            if transfer["device"] == device and self.told["position"] not in transfer["evidence"]:
                return self._replace(transfer, self._with_evidence(transfer))
        return self.state

    def _recalled(self, left: Leg) -> State:
        """The destination never answered, and the call rings elsewhere: back at who had it, or further on."""
        for transfer in reversed(self.state["transfers"]):
            if transfer["destination"] == left["number"] and transfer["from"] == self.number:
                return self._replace(transfer, {**self._with_evidence(transfer), "recalled": True})
        return self.state

    def _with_evidence(self, transfer: Mapping[str, Any]) -> dict[str, Any]:
        return {**transfer, "evidence": sorted({*transfer["evidence"], self.told["position"]})}

    def _replace(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> State:
        transfers: Sequence[Mapping[str, Any]] = self.state["transfers"]
        return {**self.state, "transfers": [new if one is old else one for one in transfers]}


def replaced(left: Leg, number: str | None, company: set[str]) -> bool:
    """Whether a leg at `number` with `company` stands where `left` stood: same others, and without `left`."""
    return (
        left["number"] is not None
        and left["number"] != number
        and left["number"] not in company
        and bool(company.intersection(left["with"]))
    )
