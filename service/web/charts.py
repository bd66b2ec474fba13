"""The geometry of the Reasons page's drawings; the templates draw what these say.

Lengths are in a drawing's own units. Everything is a link: each mark carries the part of the filter that
leads to the transfers behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from service.analytics import Bucket, Count, HourOfWeek, Pair, Point, TalkTime

STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
MOST_COLUMNS = 750


class Column(NamedTuple):
    """One bucket of time: where it stands, how high it is, and what it counts."""

    begins: datetime
    ends: datetime
    x: float
    width: float
    height: float
    transfers: int


class Row(NamedTuple):
    """One value of the dimension over time. `value` None: all the others together."""

    value: str | None
    transfers: int
    carried_out: int
    share: float
    columns: list[Column]


def next_bucket(begins: datetime, bucket: Bucket) -> datetime:
    if bucket == "month":
        return (begins.replace(day=1) + timedelta(days=32)).replace(day=1)
    return begins + STEPS[bucket]


def buckets_of(points: Sequence[Point], bucket: Bucket) -> list[datetime]:
    """The beginnings of the buckets from the first point to the last, at most the last MOST_COLUMNS."""
    if not points:
        return []
    last = max(point.begins for point in points)
    found = [min(point.begins for point in points)]
    while found[-1] < last:
        found.append(next_bucket(found[-1], bucket))
    return found[-MOST_COLUMNS:]


def rows_over_time(
    counts: Sequence[Count],
    points: Sequence[Point],
    begins: Sequence[datetime],
    bucket: Bucket,
    *,
    width: float,
    height: float,
) -> list[Row]:
    """A row for each value, all with the same columns, which begin at `begins`, and the same scale."""
    most = max((point.transfers for point in points), default=1)
    total = sum(count.transfers for count in counts)
    known = {(point.value, point.begins): point.transfers for point in points}
    step = width / max(len(begins), 12)
    return [
        Row(
            count.value,
            count.transfers,
            count.carried_out,
            count.transfers / total,
            [
                Column(
                    at, next_bucket(at, bucket), place * step, step * 0.82, high(number, most, height), number
                )
                for place, at in enumerate(begins)
                if (number := known.get((count.value, at), 0))
            ],
        )
        for count in counts
    ]


def high(number: int, most: int, height: float) -> float:
    """A column's height: never so small that it cannot be seen."""
    return max(1.5, height * number / most)


class Node(NamedTuple):
    """An agent (left) or a destination (right)."""

    name: str
    y: float
    height: float
    transfers: int


class Flow(NamedTuple):
    """Transfers from one node to another: the band's outline."""

    agent: str
    destination: str
    transfers: int
    path: str


class Sankey(NamedTuple):
    """The whole drawing of who transfers to whom."""

    height: float
    agents: list[Node]
    destinations: list[Node]
    flows: list[Flow]


NODE, GAP = 10.0, 10.0  # width of a node, and the room between two
LEAST = 12.0  # room that a label needs


def sankey(pairs: Sequence[Pair], *, left: float, right: float, scale_to: float = 320.0) -> Sankey:
    """Bands between `left` and `right`, as thick as there are transfers.

    The busiest agent is on top; destinations follow those who send to them, so that few bands cross.
    """
    total = sum(pair.transfers for pair in pairs)
    unit = scale_to / total if total else 0.0
    sent, received = Counter[str](), Counter[str]()
    for pair in pairs:
        sent[pair.agent] += pair.transfers
        received[pair.destination] += pair.transfers
    agents = stacked(sorted(sent.items(), key=lambda item: (-item[1], item[0])), unit)
    middle = {node.name: node.y + node.height / 2 for node in agents}
    pull = dict.fromkeys(received, 0.0)
    for pair in pairs:
        pull[pair.destination] += middle[pair.agent] * pair.transfers / received[pair.destination]
    destinations = stacked(sorted(received.items(), key=lambda item: (pull[item[0]], item[0])), unit)
    out = {node.name: node.y for node in agents}
    into = {node.name: node.y for node in destinations}
    places = {node.name: node.y for node in destinations}
    flows = []
    for pair in sorted(pairs, key=lambda one: (middle[one.agent], places[one.destination])):
        thick = pair.transfers * unit
        path = band(left + NODE, right, out[pair.agent], into[pair.destination], thick)
        flows.append(Flow(pair.agent, pair.destination, pair.transfers, path))
        out[pair.agent] += thick
        into[pair.destination] += thick
    height = max((node.y + max(node.height, LEAST) for node in (*agents, *destinations)), default=0.0)
    return Sankey(height, agents, destinations, flows)


def stacked(parts: Sequence[tuple[str, int]], unit: float) -> list[Node]:
    """Nodes from top to bottom."""
    nodes: list[Node] = []
    y = 0.0
    for name, number in parts:
        nodes.append(Node(name, y, number * unit, number))
        y += max(number * unit, LEAST) + GAP
    return nodes


def band(x1: float, x2: float, y1: float, y2: float, thick: float) -> str:
    """The outline of a band that leaves at y1 and arrives at y2."""
    middle = (x1 + x2) / 2
    return (
        f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        f"v{thick:.2f}C{middle:.1f} {y2 + thick:.1f} {middle:.1f} {y1 + thick:.1f} {x1:.1f} {y1 + thick:.1f}z"
    )


class Hour(NamedTuple):
    """One hour of the week; `strength` from 0 (none) to 1 (the most)."""

    weekday: int
    hour: int
    transfers: int
    strength: float


def week(hours: Sequence[HourOfWeek]) -> list[Hour]:
    """All 168 hours."""
    known = {(one.weekday, one.hour): one.transfers for one in hours}
    most = max(known.values(), default=1)
    return [
        Hour(day, hour, number, number / most)
        for day in range(1, 8)
        for hour in range(24)
        for number in (known.get((day, hour), 0),)
    ]


class TalkBin(NamedTuple):
    """One bin of the histogram of talk times."""

    from_s: float
    to_s: float | None
    transfers: int
    x: float
    width: float
    height: float


def histogram(talk: TalkTime, *, width: float, height: float) -> list[TalkBin]:
    """A column for each bin, all of one width: the bins' own widths grow."""
    most = max((one.transfers for one in talk.bins), default=0) or 1
    step = width / len(talk.bins)
    return [
        TalkBin(
            one.from_s,
            one.to_s,
            one.transfers,
            place * step,
            step * 0.9,
            high(one.transfers, most, height) if one.transfers else 0.0,
        )
        for place, one in enumerate(talk.bins)
    ]
