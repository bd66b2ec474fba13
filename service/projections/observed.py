"""Finding, in what GWS says of one call, the transfers that nobody commanded through us. Pure.

GWS names no transfer: an agent's leg is Released in the same way by a hang-up and by a transfer. What tells
them apart is what the other parties see. The rules, their grades and what they cannot find are written down
in `docs/observed-transfers.md`; the state of a call is plain JSON, so that it can be kept in a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

from service.gws import dialect
from service.projections.notice import Notice

NAMESPACE = UUID("6f1c1c0e-6a2b-5c49-9a53-7d2b1f0c8e11")  # of our own choosing

TALKING, OVER = "talking", "over"
PHASES = dict.fromkeys(dialect.TALKING, TALKING) | dict.fromkeys(dialect.OVER, OVER)
"""What the rules tell apart; any other state is a phase of its own."""

Leg = dict[str, Any]
State = dict[str, Any]


class Grade(StrEnum):
    """What an observation rests on, the strongest first."""

    LEG_SEEN = "destination's leg seen"
    PARTICIPANTS = "the other party's participants changed"
    KEYS = "transfer keys came with the Released"


class Moment:
    """When something was told: the log's position and time, and GWS's own."""

    __slots__ = ("at", "millis", "position")

    def __init__(self, position: int, at: datetime, millis: int | None) -> None:
        self.position = position
        self.at = at
        self.millis = millis


def beginning() -> State:
    """A call of which nothing is known yet."""
    return {"legs": {}, "dispatched": {}, "transfers": [], "conn_id": None}


def dispatched(state: State, agent: str, position: int) -> State:
    """A transfer by `agent` was commanded through us: his leaving the call is not to be observed."""
    return {**state, "dispatched": {**state["dispatched"], agent: position}}


def called_off(state: State, agent: str) -> State:
    """The commanded transfer did not happen."""
    return {**state, "dispatched": {name: at for name, at in state["dispatched"].items() if name != agent}}


def observe(
    state: State, call_id: str, agent: str | None, notice: Notice, moment: Moment, *, reason_key: str
) -> State:
    """The state of a call after one more notice; `state` itself if it says nothing new."""
    device = notice.device or notice.number or "unknown"
    legs: dict[str, Leg] = state["legs"]
    before = legs.get(device)
    phase = PHASES.get(notice.state or "", notice.state)
    reason = notice.user_data.get(reason_key)
    if before is not None and (
        says_the_same(before, phase, reason, notice) or is_stale(before, phase, moment)
    ):
        return state
    begins_anew = before is None or (before["phase"] == OVER and phase != OVER)
    leg: Leg = {
        "number": notice.number,
        "agent": agent,
        "phase": phase,
        "with": notice.participants,
        "reason": reason,
        "consulting": notice.may_complete,
        "talked": phase == TALKING,
        "millis": moment.millis,
        "position": moment.position,
        "gone_to": None,
        "came": {"millis": moment.millis, "position": moment.position, "with": notice.participants},
        "due": None,
    }
    if before is not None and not begins_anew:
        leg["talked"] = leg["talked"] or before["talked"]
        leg |= {name: before[name] for name in ("gone_to", "came", "due")}
        if phase == OVER:
            leg["consulting"] = before["consulting"]  # says nothing of it any more
    state = {**state, "legs": {**legs, device: leg}, "conn_id": notice.conn_id or state["conn_id"]}
    if notice.call_type == "Consult":
        return state
    return Context(state, call_id, device, notice, moment, reason_key=reason_key).judged(
        None if begins_anew else before
    )


def says_the_same(before: Leg, phase: str | None, reason: Any, notice: Notice) -> bool:
    return bool(
        before["phase"] == phase
        and before["with"] == notice.participants
        and before["reason"] == reason
        and (phase == OVER or before["consulting"] == notice.may_complete)
    )


def is_stale(before: Leg, phase: str | None, moment: Moment) -> bool:
    """Whether another session tells late what this leg has left behind already."""
    known = before["millis"]
    return (
        before["phase"] == OVER
        and phase != OVER
        and known is not None
        and moment.millis is not None
        and moment.millis <= known
    )


class Context:
    """One notice, and the call as it is with it."""

    def __init__(
        self,
        state: State,
        call_id: str,
        device: str,
        notice: Notice,
        moment: Moment,
        *,
        reason_key: str,
    ) -> None:
        self.state = state
        self.call_id = call_id
        self.device = device
        self.notice = notice
        self.moment = moment
        self.reason_key = reason_key

    def judged(self, before: Leg | None) -> State:
        """The state after the leg changed; `before`: what it was, None if it has only begun."""
        leg = self.state["legs"][self.device]
        if before is None:
            return self.state if leg["phase"] == OVER else self.arrival()
        if leg["due"] is not None and leg["talked"]:
            return self.overtaken(leg)
        if leg["phase"] == OVER and before["phase"] != OVER:
            return self.departure(before)
        if before["with"] != leg["with"]:
            return self.exchange(before)
        return self.state

    def arrival(self) -> State:
        """A leg appears: whom it has replaced, if anybody, and who has replaced it, if it is told late."""
        self.state = self._replacing()
        leg = self.state["legs"][self.device]
        successors = [
            other
            for device, other in self.state["legs"].items()
            if device != self.device
            and is_later(other["came"], leg["came"])
            and replaced(leg, other["number"], set(other["came"]["with"]))
        ]
        if not successors:
            return self.state
        successor = min(successors, key=lambda other: other["came"]["millis"])
        came = successor["came"]
        seen = {**self._seen(), "reason": successor["reason"], "position": came["position"]}
        self.state = self._put_off(
            self.device, Grade.LEG_SEEN, successor["number"], seen | {"millis": came["millis"]}
        )
        leg = self.state["legs"][self.device]
        return self.overtaken(leg) if leg["talked"] else self.state

    def _replacing(self) -> State:
        leg, number, company = (
            self.state["legs"][self.device],
            self.notice.number,
            set(self.notice.participants),
        )
        for transfer in self.state["transfers"]:
            left = self.state["legs"].get(transfer["device"])
            if left is None or is_later(left["came"], leg["came"]) or not replaced(left, number, company):
                continue
            if transfer["grade"] != Grade.LEG_SEEN:
                if transfer["destination"] in {None, number}:
                    return self._strengthen(transfer)
            elif any(
                other["number"] == transfer["destination"] and is_later(other["came"], leg["came"])
                for other in self.state["legs"].values()
            ):
                return self._strengthen(transfer)  # it went on from here to what had been taken for its end
        candidates = [
            (device, left)
            for device, left in self.state["legs"].items()
            if device != self.device
            and left["gone_to"] is None
            and not is_later(left["came"], leg["came"])
            and replaced(left, number, company)
        ]
        if not candidates:
            return self.state
        device, left = max(candidates, key=lambda one: (one[1]["came"]["millis"] or 0, one[1]["position"]))
        if left["talked"]:
            return self._found(device, left, Grade.LEG_SEEN, number, self._seen())
        recalled = self._recalled(left)
        if recalled is not self.state:
            return recalled
        return self._put_off(device, Grade.LEG_SEEN, number, self._seen())

    def overtaken(self, leg: Leg) -> State:
        """A leg has talked, and had been seen replaced before that was known: what is due comes about.

        Not if it has talked only afterwards.
        """
        due = leg["due"]
        leg = {**leg, "due": None}
        self.state = {**self.state, "legs": {**self.state["legs"], self.device: leg}}
        if due["millis"] is None or self.moment.millis is None or self.moment.millis > due["millis"]:
            return self.state
        return self._found(self.device, leg, due["grade"], due["destination"], due)

    def departure(self, before: Leg) -> State:
        """A leg is released: a hang-up, unless something else says more."""
        leg = self.state["legs"][self.device]
        if leg["gone_to"] is not None:
            return self._evidence_of(self.device)
        if leg["reason"] is not None and leg["reason"] != before["reason"] and leg["talked"]:
            return self._found(self.device, leg, Grade.KEYS, None, self._seen())
        return self.state

    def exchange(self, before: Leg) -> State:
        """The others on the call, as one party sees them, are others than before."""
        came = [number for number in self.notice.participants if number not in before["with"]]
        went = [number for number in before["with"] if number not in self.notice.participants]
        if len(came) != 1 or len(went) != 1:
            return self.state  # joined or left: a conference, or a party that hung up
        for device, leg in self.state["legs"].items():
            if leg["number"] == went[0] and device != self.device:
                known = [one for one in self.state["transfers"] if one["device"] == device]
                if leg["gone_to"] is not None:
                    if known and known[-1]["destination"] is None:
                        return self._strengthen(known[-1], Grade.PARTICIPANTS, came[0])
                    return self.state
                if leg["talked"]:
                    return self._found(device, leg, Grade.PARTICIPANTS, came[0], self._seen())
                return self._put_off(device, Grade.PARTICIPANTS, came[0], self._seen())
        return self.state

    # What is found

    def _seen(self) -> dict[str, Any]:
        """What this notice tells of a transfer that it shows."""
        data, moment = self.notice.user_data, self.moment
        return {
            "at": moment.at.isoformat(),
            "millis": moment.millis,
            "position": moment.position,
            "reason": data.get(self.reason_key),
            "user_data": data,
        }

    def _put_off(self, device: str, grade: Grade, destination: str | None, seen: Mapping[str, Any]) -> State:
        """The leg has been replaced, but as far as is known it had never talked: its session may be late."""
        leg = self.state["legs"][device]
        if leg["due"] is not None and not is_later(leg["due"], seen):
            return self.state
        leg = {**leg, "due": {**seen, "grade": grade, "destination": destination}}
        return {**self.state, "legs": {**self.state["legs"], device: leg}}

    def _found(
        self, device: str, left: Leg, grade: Grade, destination: str | None, seen: Mapping[str, Any]
    ) -> State:
        """`left` has transferred the call, and to `destination`, if that is known."""
        legs = {**self.state["legs"], device: {**left, "gone_to": destination or "unknown"}}
        awaited = self.state["dispatched"]
        if left["agent"] in awaited:
            return called_off({**self.state, "legs": legs}, left["agent"])
        positions = sorted({left["position"], seen["position"]})
        transfer = {
            "transfer_id": str(uuid5(NAMESPACE, f"{self.call_id}/{len(self.state['transfers'])}")),
            "device": device,
            "agent": left["agent"],
            "from": left["number"],
            "destination": destination,
            "operation": "two-step" if left["consulting"] else "single-step",
            "grade": grade,
            "reason": seen["reason"],
            "user_data": seen["user_data"],
            "recalled": False,
            "at": seen["at"],
            "evidence": positions,
        }
        return {**self.state, "legs": legs, "transfers": [*self.state["transfers"], transfer]}

    def _strengthen(
        self,
        transfer: Mapping[str, Any],
        grade: Grade = Grade.LEG_SEEN,
        destination: str | None = None,
    ) -> State:
        """Better evidence has come for a transfer that was found already."""
        better = {
            **transfer,
            "grade": grade,
            "destination": destination or self.notice.number,
            "evidence": [*transfer["evidence"], self.moment.position],
        }
        return self._replace(transfer, better)

    def _evidence_of(self, device: str) -> State:
        for transfer in reversed(self.state["transfers"]):
            if transfer["device"] == device and self.moment.position not in transfer["evidence"]:
                better = {**transfer, "evidence": [*transfer["evidence"], self.moment.position]}
                seen = self._seen()
                if transfer["reason"] is None and seen["reason"] is not None:
                    better |= {name: seen[name] for name in ("reason", "user_data")}
                return self._replace(transfer, better)
        return self.state

    def _recalled(self, left: Leg) -> State:
        """The destination never answered, and the call rings elsewhere: back at who had it, or further on."""
        for transfer in reversed(self.state["transfers"]):
            if transfer["destination"] == left["number"] and transfer["from"] == self.notice.number:
                return self._replace(
                    transfer,
                    {
                        **transfer,
                        "recalled": True,
                        "evidence": [*transfer["evidence"], self.moment.position],
                    },
                )
        return self.state

    def _replace(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> State:
        transfers: Sequence[Mapping[str, Any]] = self.state["transfers"]
        return {**self.state, "transfers": [new if one is old else one for one in transfers]}


def is_later(came: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether GWS dates one leg's coming after another's."""
    return (
        came["millis"] is not None and other["millis"] is not None and bool(came["millis"] > other["millis"])
    )


def replaced(left: Leg, number: str | None, company: set[str]) -> bool:
    """Whether a leg at `number` with `company` stands where `left` stood: same others, and without `left`."""
    return (
        left["number"] is not None
        and left["number"] != number
        and left["number"] not in company
        and bool(company.intersection(left["with"]))
    )
