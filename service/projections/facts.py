"""What analysts count of a call's transfers, derived from what is known of the call. Pure.

A call is kept as its `turns`, in order: one for each time that a device had it, with the moments at which it
began to ring, talked and was released. A transfer names the turn that it ended; the destination's turn is the
first one at that number after it.

A moment is `(ours, theirs)`: when it was recorded, in microseconds since 1970, and GWS's own time of it in
milliseconds, if it told one. A duration is taken between two moments of one clock: GWS's where both have it,
ours otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import msgspec

from service.projections.observed import OVER, TALKING, Leg

Moment = tuple[int, int | None]
Known = Mapping[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNKNOWN = "unknown"
CARRIED_OUT = frozenset({"confirmed", "observed", "recalled"})
"""Outcomes by which it is known that the call left the agent."""
NOT_DONE = frozenset({"rejected", "failed"})
CONSULT = "Consult"


# Turns


class Turn(msgspec.Struct, frozen=True, gc=False):
    """A time that a device had the call."""

    device: str
    agent: str | None
    number: str | None
    begun: Moment
    dialled: bool
    established: Moment | None = None
    over: Moment | None = None


Turns = tuple[Turn, ...]


def take_turn(turns: Turns, device: str, leg: Leg, now: Moment) -> Turns:
    """The turns after `device` has told that its leg is now `leg`; `turns` itself if they are the same."""
    place = last_turn(turns, device=device)
    phase = leg.phase
    turn = None if place is None else turns[place]
    if place is None or turn is None or (turn.over and phase != OVER):
        place = len(turns)
        turn = Turn(device, leg.agent, leg.number, now, phase == "Dialing")
    established = now if phase == TALKING and turn.established is None else turn.established
    over = now if phase == OVER and turn.over is None else turn.over
    after = Turn(device, leg.agent, leg.number, turn.begun, turn.dialled, established, over)
    if place < len(turns) and after == turn:
        return turns
    return (*turns[:place], after, *turns[place + 1 :])


def last_turn(turns: Turns, **wanted: str | None) -> int | None:
    """The place of the last turn that has these values."""
    for place in range(len(turns) - 1, -1, -1):
        if all(getattr(turns[place], name) == value for name, value in wanted.items()):
            return place
    return None


def elapsed(begun: Moment | None, ended: Moment | None) -> float | None:
    """Seconds between two moments, by one clock; never less than 0."""
    if begun is None or ended is None:
        return None
    if begun[1] is not None and ended[1] is not None:
        return max(0.0, (ended[1] - begun[1]) / 1_000)
    return max(0.0, (ended[0] - begun[0]) / 1_000_000)


def recorded_at(moment: Moment) -> datetime:
    """When it was recorded, by our clock."""
    return EPOCH + timedelta(microseconds=moment[0])


def happened_at(moment: Moment) -> datetime:
    """When it happened, by GWS's clock if it told, else by ours."""
    if moment[1] is None:
        return recorded_at(moment)
    return EPOCH + timedelta(milliseconds=moment[1])


def carried_on(now: int, turn: Turn | None) -> Moment:
    """The moment `now` of ours, and GWS's time of it as carried on from what it told in `turn`."""
    told = None if turn is None else turn.established or turn.begun
    if told is None or told[1] is None:
        return now, None
    return now, told[1] + (now - told[0]) // 1_000


def micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


# Calls


def call_columns(call_type: str | None, first: datetime, turns: Turns) -> dict[str, Any]:
    """What is counted of a call as a whole, of which we first heard at `first`."""
    talked = [turn for turn in turns if turn.established is not None and turn.agent is not None]
    agents = list(dict.fromkeys(turn.agent for turn in talked))
    over = [turn.over for turn in turns if turn.over is not None]
    talks = [elapsed(turn.established, turn.over) for turn in talked]
    return {
        "started_at": happened_at(turns[0].begun) if turns else first,
        "ended_at": max(map(happened_at, over)) if turns and len(over) == len(turns) else None,
        "agent_id": agents[0] if agents else None,
        "agent_ids": agents,
        "talk_seconds": sum(talk for talk in talks if talk is not None),
        "is_handled": bool(talked) and call_type != CONSULT,
    }


def local_columns(at: datetime, zone: tzinfo, name: str) -> dict[str, Any]:
    """Date, hour and weekday (1 is Monday) in the site's time zone."""
    local = at.astimezone(zone)
    return {f"{name}_date": local.date(), f"{name}_hour": local.hour, "weekday": local.isoweekday()}


# Transfers


def transfer_columns(transfers: Sequence[Known], turns: Turns) -> list[dict[str, Any]]:
    """What is counted of each transfer of a call, in the order in which they became known.

    A transfer has `agent`, `destination`, `outcome`, `turn` (the place of the turn that it ended, None if
    that is not in the record) and `left`, when it was requested or, if observed, seen. Where it was carried
    out and the turn's end is in the record, that is when it was.
    """
    had: set[Any] = set()
    received: set[str] = set()
    done = 0
    length = sum(one["outcome"] in CARRIED_OUT for one in transfers)
    columns = []
    for one in transfers:
        turn = None if one["turn"] is None else turns[one["turn"]]
        number = one["agent"] if turn is None else turn.number
        carried_out, destination = one["outcome"] in CARRIED_OUT, one["destination"]
        arrival = None if not carried_out else arrived(turns, one["turn"], destination)
        abandoned = (
            arrival is not None
            and arrival.over is not None
            and arrival.established is None
            and one["outcome"] != "recalled"
        )
        left = turn.over if carried_out and turn is not None and turn.over else one["left"]
        columns.append(
            {
                "requested_at": happened_at(left),
                "recorded_at": recorded_at(one["left"]),
                "from_dn": number,
                "chain_index": done + 1,
                "chain_length": length,
                "is_carried_out": carried_out,
                "is_ping_pong": carried_out and destination in had,
                "resource_role": role(turn, number in received),
                "technical_result": result(one["outcome"]),
                "result_reason": result_reason(arrival, abandoned=abandoned),
                "destination_type": kind_of_destination(destination, arrival, carried_out=carried_out),
                "destination_agent_id": None if arrival is None else arrival.agent,
                "talk_seconds_before": None if turn is None else elapsed(turn.established, left),
                "handover_seconds": None if arrival is None else elapsed(left, arrival.established),
                "abandoned_after": abandoned,
            }
        )
        if carried_out:
            done += 1
            had |= {number, destination}
            received.add(destination)
    return columns


def arrived(turns: Turns, left: int | None, destination: str | None) -> Turn | None:
    """The destination's turn, if its leg is in the record."""
    after = turns if left is None else turns[left + 1 :]
    return next((turn for turn in after if turn.number == destination is not None), None)


def role(turn: Turn | None, received: bool) -> str:  # noqa: FBT001 read as a sentence
    if received:
        return "ReceivedTransfer"
    return "Initiated" if turn is not None and turn.dialled else "Received"


def result(outcome: str) -> str | None:
    if outcome in CARRIED_OUT:
        return "Transferred"
    return "Failed" if outcome in NOT_DONE else None


def result_reason(arrival: Turn | None, *, abandoned: bool) -> str:
    if abandoned:
        return "AbandonedWhileRinging"
    answered = arrival is not None and arrival.established is not None and arrival.agent is not None
    return "AnsweredByAgent" if answered else "Unspecified"


def kind_of_destination(destination: str | None, arrival: Turn | None, *, carried_out: bool) -> str:
    """An agent, if the leg at the destination is in the record; external, if the call went where none is."""
    if arrival is not None:
        return "agent"
    return "external" if carried_out and destination is not None else UNKNOWN


class Reasons:
    """How a reason is found in userData: under the first of `keys` that is there, and called by `names`.

    Two spellings that differ in case or spaces only are one entry of `names`. Where there are no names, each
    reason has its own, and none is missing.
    """

    def __init__(self, keys: Sequence[str], names: Mapping[str, str]) -> None:
        self.keys = tuple(keys)
        self._names = {trimmed(raw).casefold(): name for raw, name in names.items()}

    def columns(self, user_data: Mapping[str, Any]) -> dict[str, Any]:
        source = next((key for key in self.keys if user_data.get(key) not in (None, "")), None)
        raw = None if source is None else str(user_data[source])
        name = None if raw is None else self._names.get(trimmed(raw).casefold())
        return {
            "reason": name or (trimmed(raw) if raw is not None else UNKNOWN) or UNKNOWN,
            "reason_raw": raw,
            "reason_source": source,
            "is_reason_mapped": name is not None or (raw is not None and not self._names),
        }


def trimmed(text: str) -> str:
    return " ".join(text.split())
