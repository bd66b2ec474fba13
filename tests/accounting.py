"""Holds the log against the simulator's truth: each message is there once and in order, or in a told gap."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service import events
from service.log import EventLog, StoredEvent
from service.simulator import Simulator


@dataclass(frozen=True)
class Account:
    """What became of one agent's messages."""

    published: int
    recorded: int
    missing: int
    gaps: int
    resumed: int


async def account(log: EventLog, simulator: Simulator, agent: str) -> Account:
    """Check an agent's record against the truth.

    Raises AssertionError where a promise is broken.
    """
    history = [
        (stored, event)
        for stored in await read_all(log)
        if (event := decoded(stored)) is not None and getattr(event, "agent", None) == agent
    ]
    numbers = [
        number_of(stored.payload.partition(b"\n")[2])
        for stored, event in history
        if isinstance(event, events.NotificationReceived)
    ]
    assert numbers == sorted(set(numbers)), f"{agent}: twice or out of order"
    recorded = set(numbers)
    for session in simulator.truth.sessions_of(agent):
        for message in session.messages:
            if message.acknowledged_at is not None:
                assert number_of(message.body) in recorded, f"{agent}: acknowledged and not recorded"
    gaps = gaps_of([event for _, event in history])
    published = [message for message in simulator.truth.published if message.agent == agent]
    missing = [message for message in published if number_of(message.body) not in recorded]
    for message in missing:
        assert any(start <= message.at <= end for start, end in gaps), (
            f"{agent}: {message.body!r} published at {message.at} is neither recorded nor in a gap of {gaps}"
        )
    resumed = sum(isinstance(event, events.SessionResumed) for _, event in history)
    return Account(len(published), len(numbers), len(missing), len(gaps), resumed)


def gaps_of(history: Sequence[Any]) -> list[tuple[float, float]]:
    """The spans of time in which the log itself says that something may be missing."""
    gaps: list[tuple[float, float]] = []
    since: float | None = -math.inf
    last_opened = -math.inf
    for event in history:
        match event:
            case events.SessionOpened(at=at) | events.SessionResumed(at=at):
                if since is not None:
                    gaps.append((since, at.timestamp()))
                since = None
                last_opened = at.timestamp()
            case events.SessionLost(last_alive=alive) | events.GapSuspected(last_alive=alive):
                begun = seconds(alive, last_opened)
                since = begun if since is None else min(since, begun)
            case events.SessionClosed(at=at):
                since = at.timestamp() if since is None else min(since, at.timestamp())
            case _:
                pass
    if since is not None:
        gaps.append((since, math.inf))
    return gaps


def seconds(moment: datetime | None, otherwise: float) -> float:
    return otherwise if moment is None else moment.timestamp()


def number_of(body: bytes) -> int:
    number: int = json.loads(body)["data"]["number"]
    return number


def decoded(stored: StoredEvent) -> Any:
    found = events.decode(stored.kind, stored.payload)
    return None if found is None else found[0]


async def read_all(log: EventLog) -> list[StoredEvent]:
    stored: list[StoredEvent] = []
    while page := await log.read(after=len(stored) - 1):
        stored += page
    return stored
