"""A call's story: each event in order, the legs after it, what it changed. And history in its own tempo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from service.errors import NotFound
from service.events import CallsSnapshotTaken, call_stream, transfer_stream
from service.gws import dialect
from service.log import EventLog, StoredEvent
from service.projections.call_state import CallState
from service.projections.projection import Key, Recorded, Row
from service.projections.queries import Queries
from service.projections.reading import Page

SHOWN = (
    "agent",
    "phone_number",
    "state",
    "conn_id",
    "call_type",
    "parent_call_id",
    "participants",
    "user_data",
    "doubt",
)
PAGE = 500
Change = dict[str, tuple[Any, Any]]


class Step(NamedTuple):
    """One event of a call. `legs`: each device's leg after it; `changed`: device → field → before, after."""

    event: StoredEvent
    legs: dict[str, dict[str, Any]]
    changed: dict[str, Change]


async def call_story(log: EventLog, queries: Queries, call_id: str) -> list[Step]:
    """The story of a call: what GWS said of it, snapshots that told of it, and what was commanded.

    Raises:
        NotFound: nothing is recorded of it.

    """
    said, commanded, told = await asyncio.gather(
        log.read_stream(call_stream(call_id)),
        log.read_stream(transfer_stream(call_id)),
        queries.positions_of(call_id),
    )
    known = {event.position for event in said}
    snapshots = await log.at([position for position in told if position not in known])
    events = sorted([*said, *commanded, *snapshots], key=lambda event: event.position)
    if not events:
        raise NotFound(f"nothing is recorded of call {call_id}; those known: calltrail calls --all")
    return tell(call_id, events)


def tell(call_id: str, events: Sequence[StoredEvent]) -> list[Step]:
    """Fold `events`, all of one call and in order, and note what each changes."""
    projection, rows = CallState(), dict[Key, Row]()
    steps: list[Step] = []
    for event in events:
        before = dict(rows)
        for recorded in Page.of([event]).events:
            if event.kind not in projection.kinds:
                continue
            for key in keys_of(projection, recorded, rows, call_id):
                after = projection.fold(key, rows.get(key), recorded)
                if after is not None:
                    rows[key] = after
        changed = {
            key[1]: difference(before.get(key), row)
            for key, row in rows.items()
            if before.get(key) is not row
        }
        legs = {key[1]: {name: row[name] for name in SHOWN} for key, row in rows.items()}
        steps.append(Step(event, legs, {device: change for device, change in changed.items() if change}))
    return steps


def keys_of(projection: CallState, recorded: Recorded, rows: Mapping[Key, Row], call_id: str) -> list[Key]:
    keys = [key for key in projection.keys(recorded) if key[0] == call_id]
    if isinstance(recorded.event, CallsSnapshotTaken) and projection.sweep(recorded) is not None:
        agent = recorded.event.agent
        keys += [
            key
            for key, row in rows.items()
            if row["agent"] == agent and row["state"] not in dialect.OVER and key not in keys
        ]
    return keys


def difference(before: Row | None, after: Row | None) -> Change:
    """Which of the shown fields differ, and how; a leg that is not there has None everywhere."""
    pairs = {
        name: (before[name] if before is not None else None, after[name] if after is not None else None)
        for name in SHOWN
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


class LegDifference(NamedTuple):
    """A leg that is not the same at two moments; `what`: appeared, gone (over by the second) or changed."""

    call_id: str
    device: str
    what: str
    fields: Change


async def difference_between(
    queries: Queries, first: int, second: int, *, call_id: str | None = None, agent: str | None = None
) -> list[LegDifference]:
    """What differs between the legs at two positions: of one call, of one agent, or of all that are live."""
    one, other = await asyncio.gather(
        *(queries.legs(as_of=position, call_id=call_id, agent=agent) for position in (first, second))
    )
    before = {(row["call_id"], row["device"]): row for row in one}
    after = {(row["call_id"], row["device"]): row for row in other}
    found = []
    for key in sorted(before.keys() | after.keys()):
        fields = difference(before.get(key), after.get(key))
        what = "appeared" if key not in before else "gone" if key not in after else "changed"
        if fields:
            found.append(LegDifference(*key, what, fields))
    return found


async def in_tempo(
    log: EventLog,
    *,
    after: int,
    upto: int,
    speed: float,
    stream: str | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[StoredEvent]:
    """The events with after < position ≤ upto, `speed` times as fast as they were recorded; 0: at once."""
    begun: datetime | None = None
    started = asyncio.get_running_loop().time()
    while page := await log.read(after=after, upto=upto, limit=PAGE, stream=stream):
        for event in page:
            begun = begun or event.recorded_at
            if speed > 0:
                due = (event.recorded_at - begun).total_seconds() / speed
                wait = started + due - asyncio.get_running_loop().time()
                if wait > 0:
                    await sleep(wait)
            yield event
        after = page[-1].position
