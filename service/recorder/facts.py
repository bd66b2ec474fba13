"""The events for what CometD's client says of a session."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from service.cometd import Evidence, Item, Lost, Opened, PossibleGap, Resumed
from service.events import (
    Event,
    GapSuspected,
    SessionLost,
    SessionOpened,
    SessionResumed,
    UnreadableReceived,
)
from service.recorder.kept import moment


def fact_of(item: Item, session: UUID, agent: str) -> tuple[Event, bytes | None] | None:
    """The event that says it, and its body; None if it follows from `item` alone that there is none."""
    match item:
        case Opened(acknowledged=ack, channels=channels, at=at):
            return SessionOpened(
                session=session, agent=agent, at=moment(at), ack=ack, channels=channels
            ), None
        case Resumed(at=at):
            return SessionResumed(session=session, agent=agent, at=moment(at)), None
        case Lost(cause=cause, since=since, at=at):
            return SessionLost(
                session=session, agent=agent, at=moment(at), cause=cause, last_alive=moment_of(since)
            ), None
        case PossibleGap(cause=cause, since=since, at=at):
            return GapSuspected(
                session=session, agent=agent, at=moment(at), cause=cause, last_alive=moment_of(since)
            ), None
        case Evidence(body=body, reason=reason, at=at):
            return UnreadableReceived(
                session=session, agent=agent, received_at=moment(at), reason=reason
            ), body
        case _:
            return None


def moment_of(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)
