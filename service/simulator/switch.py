"""The telephony switch: calls, their legs, and what each operation does to them. No input or output.

A call has one leg per party. A leg at an agent's device is told about: each operation answers with the list
of `View`s to be sent, one per agent concerned, in order. A leg outside (`device_id` None) is nobody's to
tell. An operation that is refused raises `Refused` and has changed nothing.

What each agent sees of a single-step transfer follows document `gws-voice-api`, section 7.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.simulator.options import Options

USER_DATA = ("AttachUserData", "UpdateUserData", "DeleteUserData", "DeleteUserDataPair")
TRANSFERS = ("SingleStepTransfer", "SingleStepConference", "InitiateTransfer")
CAPABILITIES = {
    "Ringing": ("Answer", "ClearCall", *USER_DATA),
    "Dialing": ("Hangup", "SendDtmf", *USER_DATA),
    "Established": ("Hold", "Hangup", "SendDtmf", *TRANSFERS, *USER_DATA),
    "Held": ("Retrieve", "Hangup", *TRANSFERS, *USER_DATA),
    "Released": (),
}
"""What may be done in each state (document `gws-voice-api`, section 5.2), as far as it is simulated."""

UserData = list[tuple[str, Any]]
"""The attached data, in order; a key may stand in it more than once, as AttachUserData makes it."""


class Refused(Exception):
    """An operation is not possible; `status_code` is GWS's (section 2.2 of the voice API document)."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.message = message


@dataclass(slots=True, eq=False)
class Leg:
    """One party's part of a call. `established_at` is in seconds of the switch's clock."""

    number: str
    device_id: str | None
    state: str
    established_at: float | None = None
    mute: str = "Off"


@dataclass(slots=True, eq=False)
class Call:
    """A call: its identity, which never changes, its attached data, and its legs (released ones too).

    `ahead_s` is how far the call's own clock was ahead of the real one when it was placed, at `placed_at`.
    """

    id: str
    uuid: str
    conn_id: str
    call_type: str
    dnis: str
    ani: str | None = None
    parent: "Call | None" = None
    sample: bool = False
    user_data: UserData = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)
    consult: "Call | None" = None
    placed_at: float = 0.0
    ahead_s: float = 0.0

    @property
    def live(self) -> list[Leg]:
        return [leg for leg in self.legs if leg.state != "Released"]

    def leg(self, number: str) -> Leg | None:
        """Give the live leg of this number."""
        return next((leg for leg in self.live if leg.number == number), None)


@dataclass(frozen=True, slots=True)
class View:
    """The call as one agent sees it at one moment, and why he is told (`notification_type`)."""

    call: Call
    number: str
    device_id: str
    state: str
    participants: tuple[str, ...]
    capabilities: tuple[str, ...]
    user_data: tuple[tuple[str, Any], ...]
    duration_s: int
    mute: str
    notification_type: str = "StatusChange"


class Switch:
    """All calls. `devices` maps the agents' numbers to their device ids; `clock` gives seconds."""

    def __init__(self, options: Options, devices: Mapping[str, str], clock: Callable[[], float]) -> None:
        self.calls: dict[str, Call] = {}
        self._going: dict[str, Call] = {}
        self._options = options
        self._devices = devices
        self._clock = clock
        rng = random.Random(f"{options.seed}/switch")
        self._uuid_prefix = "".join(rng.choices("0123456789ABCDEFGHIJKLMNOPQRSTUV", k=24))
        self._conn_prefix = f"0071{rng.getrandbits(16):04x}"
        self._placed = 0

    # What is seen

    def view(
        self, call: Call, leg: Leg, notification_type: str = "StatusChange", *, left: Leg | None = None
    ) -> View:
        """Show a call to the agent at `leg`, as it is now; `left` still counts as a participant."""
        assert leg.device_id is not None
        capabilities = CAPABILITIES[leg.state]
        if leg.state == "Held" and call.consult is not None and call.consult.leg(leg.number):
            capabilities = ("CompleteTransfer", *(one for one in capabilities if one != "Retrieve"))
        since = leg.established_at
        return View(
            call=call,
            number=leg.number,
            device_id=leg.device_id,
            state=leg.state,
            participants=tuple(other.number for other in (*call.live, left) if other and other is not leg),
            capabilities=capabilities,
            user_data=tuple(call.user_data),
            duration_s=0 if since is None else int((self._clock() - since) * self._options.speed),
            mute=leg.mute,
            notification_type=notification_type,
        )

    def time_of(self, call: Call) -> float:
        """What a call's own clock says, in seconds since the epoch."""
        now = self._clock()
        if not call.ahead_s:
            return now
        return call.placed_at + call.ahead_s + (now - call.placed_at) * self._options.speed

    def calls_of(self, number: str) -> list[View]:
        """Every live leg of an agent, as GET /me/calls lists them."""
        return [self.view(call, leg) for call in self._going.values() if (leg := call.leg(number))]

    def leg(self, call_id: str, number: str) -> tuple[Call, Leg]:
        """Give the live leg of an agent in a call; raises `Refused` 6 when there is none."""
        call = self.calls.get(call_id)
        leg = call.leg(number) if call else None
        if call is None or leg is None:
            raise Refused(6, f"Call '{call_id}' not found.")
        return call, leg

    # Operations

    def place(
        self,
        caller: str,
        destination: str,
        *,
        call_id: str | None = None,
        conn_id: str | None = None,
        dnis: str | None = None,
        user_data: UserData | None = None,
        parent: Call | None = None,
        sample: bool = False,
        starts_at: float | None = None,
    ) -> tuple[Call, list[View]]:
        """Place a call: the caller hears it dialling, the destination rings.

        Ids that are not given are drawn; `dnis` is the destination unless given. `starts_at` sets the call's
        own clock, which passes `speed` times faster than the real one.
        """
        self._check_destination(destination)
        self._placed += 1
        inside = caller in self._devices, destination in self._devices
        kinds = {(True, True): "Internal", (False, True): "Inbound", (True, False): "Outbound"}
        uuid = call_id or f"{self._uuid_prefix}{self._placed:08d}"
        conn_id = conn_id or f"{self._conn_prefix}{self._placed:08x}"
        call = Call(
            id=conn_id if self._options.form == "8.5.0" else uuid,
            uuid=uuid,
            conn_id=conn_id,
            call_type="Consult" if parent else kinds.get(inside, "Unknown"),
            dnis=dnis or destination,
            ani=None if inside[0] else caller,
            parent=parent,
            sample=sample,
            user_data=list(user_data or []),
            placed_at=self._clock(),
        )
        if starts_at is not None:
            call.ahead_s = starts_at - call.placed_at
        elif parent is not None:
            call.placed_at, call.ahead_s = parent.placed_at, parent.ahead_s
        if call.id in self.calls:
            raise Refused(18, f"Call '{call.id}' already exists.")
        self.calls[call.id] = self._going[call.id] = call
        call.legs = [
            Leg(caller, self._devices.get(caller), "Dialing"),
            Leg(destination, self._devices.get(destination), "Ringing"),
        ]
        return call, self._tell(call, call.legs)

    def answer(self, call: Call, leg: Leg) -> list[View]:
        """Answer a ringing leg; a leg that was dialling hears it."""
        if leg.state != "Ringing":
            raise Refused(3, f"Answer is not possible: the call is {leg.state}.")
        joined = [leg, *(other for other in call.live if other.state == "Dialing")]
        for one in joined:
            one.state, one.established_at = "Established", self._clock()
        return self._tell(call, joined)

    def hangup(self, call: Call, leg: Leg) -> list[View]:
        """Release a leg; a call that has only one party left ends."""
        views = self._release(call, leg)
        remaining = call.live
        if len(remaining) == 1:
            views += self._release(call, remaining[0], left=leg)
        return views + self._tell(call, call.live, "ParticipantsUpdated")

    def clear(self, call: Call) -> list[View]:
        """End a call for everyone."""
        views: list[View] = []
        for leg in call.live:
            views += self._release(call, leg)
        return views

    def hold(self, call: Call, leg: Leg) -> list[View]:
        return self._move(call, leg, "Hold", "Established", "Held")

    def retrieve(self, call: Call, leg: Leg) -> list[View]:
        return self._move(call, leg, "Retrieve", "Held", "Established")

    def single_step_transfer(self, call: Call, leg: Leg, destination: str, user_data: UserData) -> list[View]:
        """Hand the call over: the agent is released, the destination rings, the others see it."""
        self._check_transfer(call, leg, "SingleStepTransfer", destination)
        merge(call.user_data, user_data)
        views: list[View] = []
        if user_data and self._options.attached_data_first:
            views += self._tell(call, [leg], "AttachedDataChanged")
        others = [other for other in call.live if other is not leg]
        views += self._release(call, leg)
        return views + self._ring(call, destination, others, told=bool(user_data))

    def single_step_conference(
        self, call: Call, leg: Leg, destination: str, user_data: UserData
    ) -> list[View]:
        """Ring a further party into the call."""
        self._check_transfer(call, leg, "SingleStepConference", destination)
        merge(call.user_data, user_data)
        return self._ring(call, destination, call.live, told=bool(user_data))

    def initiate_transfer(
        self, call: Call, leg: Leg, destination: str, user_data: UserData
    ) -> tuple[Call, list[View]]:
        """Hold the call and dial a consult call, which carries the same data."""
        self._check_transfer(call, leg, "InitiateTransfer", destination)
        merge(call.user_data, user_data)
        leg.state = "Held"
        views = self._tell(call, [leg])
        call.consult, dialled = self.place(
            leg.number, destination, parent=call, user_data=call.user_data, dnis=destination
        )
        return call.consult, views + dialled

    def complete_transfer(self, call: Call, leg: Leg) -> list[View]:
        """Join the two calls: the agent leaves both, the consulted party goes on in the first."""
        consult = call.consult
        mine = consult.leg(leg.number) if consult else None
        if consult is None or mine is None:
            raise Refused(2, "There is no consult call to complete the transfer with.")
        call.consult = None
        others = [other for other in call.live if other is not leg]
        views = self._release(call, leg)
        views += self._release(consult, mine)
        for far in consult.live:
            joining = Leg(far.number, far.device_id, far.state, far.established_at)
            views += self._release(consult, far, left=mine)
            call.legs.append(joining)
            views += self._tell(call, [joining])
        return views + self._tell(call, others, "ParticipantsUpdated")

    def remove_participant(self, call: Call, leg: Leg, participant: str) -> list[View]:
        """Release another party of a conference."""
        removed = call.leg(participant)
        if removed is None or removed is leg:
            raise Refused(2, f"'{participant}' is not a participant of the call.")
        if len(call.live) <= 2:
            raise Refused(3, "The call is not a conference.")
        return self._release(call, removed) + self._tell(call, call.live, "ParticipantsUpdated")

    def change_user_data(self, call: Call, operation: str, given: UserData, key: str = "") -> list[View]:
        """Do one of the four operations on userData; everyone on the call is told."""
        match operation:
            case "AttachUserData":
                call.user_data += given
            case "UpdateUserData":
                merge(call.user_data, given)
            case "DeleteUserData":
                call.user_data.clear()
            case _:
                call.user_data = [pair for pair in call.user_data if pair[0] != key]
        return self._tell(call, call.live, "AttachedDataChanged")

    def recall(self, call: Call, destination: str, agent: str) -> list[View]:
        """Bring a transferred call back, because the destination did not answer: it rings at the agent."""
        leg = call.leg(destination)
        others = [other for other in call.live if other is not leg]
        if leg is None or not others:
            return []
        return self._release(call, leg) + self._ring(call, agent, others, told=False)

    # The parts of an operation

    def _tell(self, call: Call, legs: list[Leg], notification_type: str = "StatusChange") -> list[View]:
        return [self.view(call, leg, notification_type) for leg in legs if leg.device_id is not None]

    def _move(self, call: Call, leg: Leg, operation: str, before: str, after: str) -> list[View]:
        if leg.state != before:
            raise Refused(3, f"{operation} is not possible: the call is {leg.state}.")
        leg.state = after
        return self._tell(call, [leg])

    def _release(self, call: Call, leg: Leg, left: Leg | None = None) -> list[View]:
        """Release a leg. It still shows the parties it had, also the one who `left` just before."""
        leg.state = "Released"
        if not call.live:
            del self._going[call.id]
        return [] if leg.device_id is None else [self.view(call, leg, left=left)]

    def _ring(self, call: Call, destination: str, others: list[Leg], *, told: bool) -> list[View]:
        joining = Leg(destination, self._devices.get(destination), "Ringing")
        call.legs.append(joining)
        views = self._tell(call, [joining]) + self._tell(call, others, "ParticipantsUpdated")
        return views + (self._tell(call, others, "AttachedDataChanged") if told else [])

    def _check_transfer(self, call: Call, leg: Leg, operation: str, destination: str) -> None:
        if operation not in CAPABILITIES[leg.state]:
            raise Refused(3, f"{operation} is not possible: the call is {leg.state}.")
        if call.leg(destination) is not None:
            raise Refused(2, f"'{destination}' is on the call already.")
        self._check_destination(destination)

    def _check_destination(self, destination: str) -> None:
        """Numbers shaped like ours must be ours; any other number is outside and can be dialled."""
        if not destination.lstrip("+").isdigit():
            raise Refused(2, f"'{destination}' is not a phone number.")
        ours = next(iter(self._devices), "")
        if destination not in self._devices and len(destination) == len(ours) and destination[:2] == ours[:2]:
            raise Refused(4, f"Device '{destination}' is not registered.")


def merge(user_data: UserData, given: UserData) -> None:
    """Set the given keys, replacing each where it stands first and adding new ones at the end."""
    new = dict(given)
    merged: dict[int | str, tuple[str, Any]] = {}
    for index, (key, value) in enumerate(user_data):
        if key in new:
            merged.setdefault(key, (key, new[key]))
        else:
            merged[index] = (key, value)  # a key that stays may stand more than once
    for key, value in new.items():
        merged.setdefault(key, (key, value))
    user_data[:] = merged.values()
