"""Finding, in what GWS says of one call, the transfers that nobody commanded through us. Pure.

GWS names no transfer: an agent's leg is Released in the same way by a hang-up and by a transfer. What tells
them apart is what the other parties see. The rules, their grades and what they cannot find are written down
in `docs/observed-transfers.md`.

Each agent's session tells its part in order, but one session may be seconds later than another. So a call
keeps what it was told that mattered, in the order of GWS's own time; what comes late is put in its place, and
the rules go over the whole again.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

import msgspec
from msgspec.structs import replace

from service.gws import dialect
from service.log import rfc3339
from service.projections.notice import Notice

Transfer = dict[str, Any]
NAMESPACE = UUID("6f1c1c0e-6a2b-5c49-9a53-7d2b1f0c8e11")  # of our own choosing

TALKING, OVER = "talking", "over"
PHASES = dict.fromkeys(dialect.TALKING, TALKING) | dict.fromkeys(dialect.OVER, OVER)
"""What the rules tell apart; any other state is a phase of its own."""

LONGEST_MEMORY = (
    100  # things told of one call; of a longer one, what comes late is taken as if it came in time
)


class Grade(StrEnum):
    """What an observation rests on, the strongest first."""

    LEG_SEEN = "destination's leg seen"
    PARTICIPANTS = "the other party's participants changed"
    KEYS = "transfer keys came with the Released"


class Command(msgspec.Struct, frozen=True, gc=False):
    """A transfer by `agent` was commanded through us (his leaving is not to be observed), or called off.

    `millis` is GWS's time: of what it told last, for it tells nothing of this.
    """

    agent: str
    called_off: bool
    position: int
    millis: int | None = None


class Told(msgspec.Struct, frozen=True, gc=False):
    """What a notification tells of a leg, as far as the rules look at it."""

    device: str
    number: str | None
    agent: str | None
    phase: str | None
    company: list[str]
    """The others on the call."""
    reason: Any
    consulting: bool
    """Whether a consult call is there to complete a transfer with."""
    consult: bool
    """Whether it is a consult call itself."""
    user_data: dict[str, Any]
    millis: int | None
    position: int
    at: datetime


class Leg(msgspec.Struct, frozen=True, gc=False):
    """A device's part in the call, as it was told last."""

    number: str | None
    agent: str | None
    phase: str | None
    company: list[str]
    reason: Any
    consulting: bool
    talked: bool
    millis: int
    position: int
    gone_to: str | None = None


class State(msgspec.Struct, frozen=True, gc=False):
    """What is known of a call. `transfers`, what was found, is plain JSON."""

    legs: dict[str, Leg] = {}
    awaited: frozenset[str] = frozenset()
    """The agents by whom a transfer was commanded that is not seen yet."""
    transfers: tuple[Transfer, ...] = ()
    told: tuple[Told | Command, ...] = ()


def noticed(
    state: State, agent: str | None, notice: Notice, position: int, at: datetime, *, reason_key: str
) -> Told | None:
    """What a notice tells; None if that is known already."""
    device = device_of(notice)
    phase = PHASES.get(notice.state or "", notice.state)
    reason = notice.user_data.get(reason_key)
    known = state.legs.get(device)
    if (
        known is not None
        and known.phase == phase
        and known.reason == reason
        and known.company == notice.participants
        and (phase == OVER or known.consulting == notice.may_complete)
    ):
        return None
    return Told(
        device,
        notice.number,
        agent,
        phase,
        notice.participants,
        reason,
        notice.may_complete,
        notice.call_type == "Consult",
        notice.user_data,
        notice.millis,
        position,
        at,
    )


def device_of(notice: Notice) -> str:
    """The device whose leg a notice tells of."""
    return notice.device or notice.number or "unknown"


def observe(state: State, call_id: str, told: Told | Command) -> State:
    """The state of a call after it was told one more thing; `state` itself if that says nothing new."""
    before = state.told
    millis = told.millis
    if millis is None:
        millis = (before[-1].millis or 0) if before else 0
        told = replace(told, millis=millis)
    place = len(before)
    while place and (before[place - 1].millis or 0) > millis:
        place -= 1
    if place == len(before) or len(before) > LONGEST_MEMORY:
        after = step(state, call_id, told)
        return after if after is state else with_told(after, (*before, told)[-LONGEST_MEMORY - 1 :])
    ordered = (*before[:place], told, *before[place:])
    state = State()
    for one in ordered:
        state = step(state, call_id, one)
    return with_told(state, ordered)


def with_told(state: State, told: tuple[Told | Command, ...]) -> State:
    return State(state.legs, state.awaited, state.transfers, told)


def step(state: State, call_id: str, told: Told | Command) -> State:
    """The state after what was told next, in GWS's order."""
    if isinstance(told, Command):
        awaited = state.awaited - {told.agent} if told.called_off else state.awaited | {told.agent}
        return State(state.legs, awaited, state.transfers, state.told)
    device, phase = told.device, told.phase
    millis = told.millis or 0
    before = state.legs.get(device)
    if before is not None and is_stale(before, phase, millis):
        return state
    begins_anew = before is None or (before.phase == OVER and phase != OVER)
    talked, gone_to, consulting = phase == TALKING, None, told.consulting
    if before is not None and not begins_anew:
        talked, gone_to = talked or before.talked, before.gone_to
        if phase == OVER:
            consulting = before.consulting  # says nothing of it any more
    leg = Leg(
        told.number,
        told.agent,
        phase,
        told.company,
        told.reason,
        consulting,
        talked,
        millis,
        told.position,
        gone_to,
    )
    state = State({**state.legs, device: leg}, state.awaited, state.transfers, state.told)
    if told.consult:
        return state
    if before is None or begins_anew:
        return state if phase == OVER else Context(state, call_id, told).arrival()
    if phase == OVER and before.phase != OVER:
        return Context(state, call_id, told).departure(before)
    if before.company != leg.company:
        return Context(state, call_id, told).exchange(before)
    return state


def is_stale(before: Leg, phase: str | None, millis: int) -> bool:
    """Whether another session tells what this leg has left behind in the same millisecond."""
    return before.phase == OVER and phase != OVER and 0 < millis <= before.millis


class Context:
    """One thing told, and the call as it is with it."""

    def __init__(self, state: State, call_id: str, told: Told) -> None:
        self.state = state
        self.call_id = call_id
        self.told = told
        self.device = told.device
        self.number = told.number

    def arrival(self) -> State:
        """A leg appears; find whom it has replaced, if anybody."""
        number, company = self.number, set(self.told.company)
        for transfer in self.state.transfers:
            if transfer["destination"] in {None, number} and transfer["grade"] != Grade.LEG_SEEN:
                left = self.state.legs.get(transfer["device"])
                if left is not None and replaced(left, number, company):
                    return self._strengthen(transfer)
        candidates = [
            (device, leg)
            for device, leg in self.state.legs.items()
            if device != self.device and leg.gone_to is None and replaced(leg, number, company)
        ]
        if not candidates:
            return self.state
        device, left = max(candidates, key=lambda one: (one[1].millis, one[1].position))
        if not left.talked:
            return self._recalled(left)
        return self._found(device, left, Grade.LEG_SEEN, number)

    def departure(self, before: Leg) -> State:
        """A leg is released: a hang-up, unless something else says more."""
        leg = self.state.legs[self.device]
        if leg.gone_to is not None:
            return self._evidence_of(self.device)
        if leg.reason is not None and leg.reason != before.reason and leg.talked:
            return self._found(self.device, leg, Grade.KEYS, None)
        return self.state

    def exchange(self, before: Leg) -> State:
        """The others on the call, as one party sees them, are others than before."""
        came = [number for number in self.told.company if number not in before.company]
        went = [number for number in before.company if number not in self.told.company]
        if len(came) != 1 or len(went) != 1:
            return self.state  # joined or left: a conference, or a party that hung up
        for device, leg in self.state.legs.items():
            if leg.number == went[0] and device != self.device:
                known = [one for one in self.state.transfers if one["device"] == device]
                if leg.gone_to is not None:
                    if known and known[-1]["destination"] is None:
                        return self._strengthen(known[-1], Grade.PARTICIPANTS, came[0])
                    return self.state
                if not leg.talked:
                    return self.state  # rang in vain: a recall
                return self._found(device, leg, Grade.PARTICIPANTS, came[0])
        return self.state

    # What is found

    def _found(self, device: str, left: Leg, grade: Grade, destination: str | None) -> State:
        """`left` has transferred the call, and to `destination`, if that is known."""
        legs = {**self.state.legs, device: replace(left, gone_to=destination or "unknown")}
        transfers, awaited = self.state.transfers, self.state.awaited
        if left.agent in awaited:
            return State(legs, awaited - {left.agent}, transfers, self.state.told)
        earlier = sum(one["device"] == device for one in transfers)
        transfer = {
            "transfer_id": str(uuid5(NAMESPACE, f"{self.call_id}/{device}/{earlier}")),
            "device": device,
            "agent": left.agent,
            "from": left.number,
            "destination": destination,
            "operation": "two-step" if left.consulting else "single-step",
            "grade": grade,
            "reason": self.told.reason,
            "user_data": self.told.user_data,
            "recalled": False,
            "at": rfc3339(self.told.at),
            "evidence": sorted({left.position, self.told.position}),
        }
        return State(legs, awaited, (*transfers, transfer), self.state.told)

    def _strengthen(
        self,
        transfer: Transfer,
        grade: Grade = Grade.LEG_SEEN,
        destination: str | None = None,
    ) -> State:
        """Better evidence has come for a transfer that was found already."""
        better = {"grade": grade, "destination": destination or self.number}
        return self._replace(transfer, {**self._with_evidence(transfer), **better})

    def _evidence_of(self, device: str) -> State:
        for transfer in reversed(self.state.transfers):
            if transfer["device"] == device and self.told.position not in transfer["evidence"]:
                return self._replace(transfer, self._with_evidence(transfer))
        return self.state

    def _recalled(self, left: Leg) -> State:
        """The destination never answered, and the call rings elsewhere: back at who had it, or further on."""
        for transfer in reversed(self.state.transfers):
            if transfer["destination"] == left.number and transfer["from"] == self.number:
                return self._replace(transfer, {**self._with_evidence(transfer), "recalled": True})
        return self.state

    def _with_evidence(self, transfer: Transfer) -> Transfer:
        return {**transfer, "evidence": sorted({*transfer["evidence"], self.told.position})}

    def _replace(self, old: Transfer, new: Transfer) -> State:
        state = self.state
        transfers = tuple(new if one is old else one for one in state.transfers)
        return State(state.legs, state.awaited, transfers, state.told)


def replaced(left: Leg, number: str | None, company: set[str]) -> bool:
    """Whether a leg at `number` with `company` stands where `left` stood: same others, and without `left`."""
    return (
        left.number is not None
        and left.number != number
        and left.number not in company
        and bool(company.intersection(left.company))
    )
