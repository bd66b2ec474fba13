"""`coverage`: per agent, the spans of time in which the record is complete, doubtful, or missing.

A span is `complete` while a session is open, `missing` while none is, and `doubtful` from a poll that failed
on a server that does not redeliver until polls succeed again. Times are the recorder's. The span that follows
a lost session begins when the session was last known to be alive, not when its loss was noticed.

A process that is killed writes nothing more, so in the log its sessions stay open. Readers are told that the
record is doubtful from when such a session was last known to be alive (`as_known`): a successor that comes in
time will have missed nothing, one that comes later will say so in the log.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from service.events import Event, GapSuspected, SessionClosed, SessionLost, SessionOpened, SessionResumed
from service.projections.projection import Key, Recorded, Row, Sweep, metadata, storable

table = sa.Table(
    "coverage",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("agent", sa.Text, primary_key=True),
    sa.Column("session", sa.Uuid),
    sa.Column("spans", JSONB, nullable=False),
    sa.Column("last_position", sa.BigInteger, nullable=False),
)

COMPLETE, MISSING, DOUBTFUL = "complete", "missing", "doubtful"
SESSIONS: tuple[type[Event], ...] = (SessionOpened, SessionResumed, SessionLost, GapSuspected, SessionClosed)


class Coverage:
    """The fold behind `coverage`."""

    name = "coverage"
    table = table
    key = ("agent",)
    versioned = False
    kinds = frozenset(kind.kind() for kind in SESSIONS)
    by_call = True
    sweeping = frozenset[str]()
    early_indexes = ()

    def keys(self, recorded: Recorded) -> tuple[Key, ...]:
        agent: str = recorded.event.agent  # type: ignore[attr-defined]
        return ((storable(agent),),)

    def sweep(self, recorded: Recorded) -> Sweep | None:  # noqa: ARG002 the protocol's
        return None

    def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
        event = recorded.event
        if row is not None and recorded.position <= row["last_position"]:
            return row
        spans: list[dict[str, Any]] = list(row["spans"]) if row is not None else []
        session = row["session"] if row is not None else None
        match event:
            case SessionOpened(session=opened, at=at) | SessionResumed(session=opened, at=at):
                session = opened
                if not (isinstance(event, SessionResumed) and spans and spans[-1]["kind"] == COMPLETE):
                    begin(spans, COMPLETE, at, recorded, type(event).__name__)
            case SessionLost(session=lost, cause=cause, last_alive=alive):
                if session not in {None, lost}:
                    return row  # another session has taken its place
                session = None
                begin(spans, MISSING, alive or last_begun(spans) or event.at, recorded, cause)
            case GapSuspected(cause=cause, last_alive=alive):
                begin(spans, DOUBTFUL, alive or last_begun(spans) or event.at, recorded, cause)
            case SessionClosed(session=closed, at=at, reason=reason):
                if session not in {None, closed}:
                    return row
                session = None
                begin(spans, MISSING, at, recorded, reason)
            case _:
                return row
        return {"agent": key[0], "session": session, "spans": spans, "last_position": recorded.position}


def begin(spans: list[dict[str, Any]], kind: str, at: datetime, recorded: Recorded, why: str) -> None:
    """End the span that is open and begin another; one that would have no length is replaced."""
    moment = at.isoformat()
    if spans:
        last = spans[-1]
        if last["kind"] == kind:
            return
        begun = datetime.fromisoformat(last["from"])
        if at <= begun:
            spans.pop()
            moment = last["from"]
        else:
            spans[-1] = {**last, "to": moment}
    spans.append(
        {"kind": kind, "from": moment, "to": None, "why": storable(why), "position": recorded.position}
    )


def last_begun(spans: list[dict[str, Any]]) -> datetime | None:
    return datetime.fromisoformat(spans[-1]["from"]) if spans else None


def as_known(spans: list[dict[str, Any]], alive_at: datetime | None, why: str) -> list[dict[str, Any]]:
    """The spans, where of an open session nothing is known after `alive_at` (None: since its opening)."""
    begun = last_begun(spans)
    if begun is None or spans[-1]["kind"] != COMPLETE:
        return spans
    since = begun if alive_at is None else max(begun, alive_at)
    last, moment = spans[-1], since.isoformat()
    doubtful = {"kind": DOUBTFUL, "from": moment, "to": None, "why": why, "position": last["position"]}
    certain = [{**last, "to": moment}] if since > begun else []
    return [*spans[:-1], *certain, doubtful]


def overlapping(spans: list[dict[str, Any]], since: datetime, until: datetime | None) -> list[dict[str, Any]]:
    """The spans that are not complete and overlap the time from `since` to `until` (None: still going on).

    Before the first span nothing was recorded, and nothing is known to be missing either: that is said by
    the span's own beginning.
    """
    found = []
    for span in spans:
        if span["kind"] == COMPLETE:
            continue
        ended = datetime.fromisoformat(span["to"]) if span["to"] else None
        begun = datetime.fromisoformat(span["from"])
        if (until is None or begun <= until) and (ended is None or ended >= since):
            found.append(span)
    return found
