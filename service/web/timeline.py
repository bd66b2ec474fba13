"""A call drawn over time: a lane for each leg, a bar for each state, an arrow for each transfer.

All lengths are in the drawing's own units. Distances grow with the square root of the time between two
events, so that a transfer's milliseconds and a talk's minutes can both be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any, NamedTuple

from service.gws.dialect import ESTABLISHED, HELD, OVER, RINGING
from service.projections import Step
from service.projections.facts import NOT_DONE

WIDTH, LEFT, RIGHT = 1120.0, 130.0, 24.0
TOP, LANE, BAR, SPAN = 30.0, 46.0, 18.0, 22.0
LEAST = 0.6  # what two events at the same instant are apart, as √seconds
TICK_ROOM = 92.0
LABEL = 280.0  # room that a transfer's label needs

STATE_CLASSES = {RINGING: "ringing", "Dialing": "ringing", ESTABLISHED: "established", HELD: "held"}


class State(NamedTuple):
    """A state of a leg, from one event to another."""

    x: float
    width: float
    css: str
    title: str


class Lane(NamedTuple):
    """A leg: its label, the middle of its lane, its states, and where it ended."""

    label: str
    agent: str
    y: float
    bars: list[State]
    end: float | None


class Move(NamedTuple):
    """A transfer: its span above the lanes, and the arrow from leg to leg, if the call went so.

    Its label stands in a long span, else beside it where there is room.
    """

    transfer: Mapping[str, Any]
    y: float
    x: float
    width: float
    label_x: float
    anchor: str
    arrow: str | None
    head: str | None


class Timeline(NamedTuple):
    """The whole drawing; `xs` has the place of each step."""

    height: float
    xs: list[float]
    hits: list[tuple[float, float]]
    lanes: list[Lane]
    moves: list[Move]
    ticks: list[tuple[float, Step]]


def draw(steps: Sequence[Step], transfers: Sequence[Mapping[str, Any]]) -> Timeline:
    """Draw a call's steps (at least one) and the transfers on it."""
    xs = places(steps)
    top = TOP + SPAN * len(transfers) + (14 if transfers else 0)
    lanes = [
        lane(device, steps, xs, top + LANE * (number + 0.5)) for number, device in enumerate(devices(steps))
    ]
    moves = [move(one, number, steps, xs, lanes) for number, one in enumerate(transfers)]
    edges = [LEFT, *((a + b) / 2 for a, b in pairwise(xs)), WIDTH]
    return Timeline(
        height=top + LANE * len(lanes) + 12,
        xs=xs,
        hits=[(a, b - a) for a, b in pairwise(edges)],
        lanes=lanes,
        moves=moves,
        ticks=ticks(steps, xs),
    )


def places(steps: Sequence[Step]) -> list[float]:
    """Where each step stands."""
    moments = [step.event.recorded_at.timestamp() for step in steps]
    gaps = [LEAST + sqrt(max(b - a, 0.0)) for a, b in pairwise(moments)]
    scale = (WIDTH - LEFT - RIGHT - 12) / (sum(gaps) or 1.0)
    xs = [LEFT + 12]
    for gap in gaps:
        xs.append(xs[-1] + gap * scale)
    return xs


def devices(steps: Sequence[Step]) -> list[str]:
    """The devices of the call's legs, in the order in which they appeared."""
    return list(dict.fromkeys(device for step in steps for device in step.legs))


def lane(device: str, steps: Sequence[Step], xs: Sequence[float], y: float) -> Lane:
    bars: list[State] = []
    told: list[tuple[float, str]] = []  # where each new state began
    label = agent = ""
    for x, step in zip(xs, steps, strict=True):
        leg = step.legs.get(device)
        if leg is None:
            continue
        label, agent = leg["phone_number"] or label or device, leg["agent"] or agent
        state = leg["state"] or "unknown"
        if not told or told[-1][1] != state:
            told.append((x, state))
    for number, (x, state) in enumerate(told):
        until = told[number + 1][0] if number + 1 < len(told) else WIDTH - RIGHT
        if state not in OVER:
            bars.append(State(x, max(until - x, 2.0), STATE_CLASSES.get(state, "other"), f"{label} {state}"))
    end = told[-1][0] if told and told[-1][1] in OVER else None
    return Lane(label, agent, y, bars, end)


def move(
    transfer: Mapping[str, Any],
    number: int,
    steps: Sequence[Step],
    xs: Sequence[float],
    lanes: Sequence[Lane],
) -> Move:
    positions = [step.event.position for step in steps]
    begin = place_of(transfer["first_position"], positions, xs)
    end = place_of(transfer["last_position"], positions, xs)
    source = next((one for one in lanes if transfer["agent"] in {one.agent, one.label}), None)
    target = next((one for one in lanes if one.label == transfer["destination"]), None)
    arrow = head = None
    if transfer["outcome"] not in NOT_DONE and source and target and source is not target:
        arrival = next((bar.x for bar in target.bars if bar.x >= begin), end)
        down = target.y > source.y
        tip = target.y - (BAR / 2 + 3 if down else -BAR / 2 - 3)
        leave = source.y + (BAR / 2 if down else -BAR / 2)
        middle = (leave + tip) / 2
        arrow = (
            f"M{begin:.1f} {leave:.1f}"
            f"C{begin:.1f} {middle:.1f} {arrival:.1f} {middle:.1f} {arrival:.1f} {tip:.1f}"
        )
        back = -6 if down else 6
        head = f"M{arrival:.1f} {tip:.1f}l-4 {back}h8z"
    width = max(end - begin, 6.0)
    if width > LABEL:
        label_x, anchor = begin + 8, "start"
    elif begin + width + LABEL < WIDTH:
        label_x, anchor = begin + width + 8, "start"
    else:
        label_x, anchor = begin - 8, "end"
    return Move(transfer, TOP + SPAN * number, begin, width, label_x, anchor, arrow, head)


def place_of(position: int, positions: Sequence[int], xs: Sequence[float]) -> float:
    """Where a position stands: at its own step, or at the next one."""
    return next((x for x, one in zip(xs, positions, strict=True) if one >= position), xs[-1])


def ticks(steps: Sequence[Step], xs: Sequence[float]) -> list[tuple[float, Step]]:
    """The steps at which there is room for their time."""
    found: list[tuple[float, Step]] = []
    for x, step in zip(xs, steps, strict=True):
        if not found or x - found[-1][0] >= TICK_ROOM:
            found.append((x, step))
    return found
