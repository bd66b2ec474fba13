"""`call_state`: every leg of every call, by interval of positions, so that any moment can be asked for.

A leg is (call id, device): two agents on one call share the id. Every notification carries the whole call as
its device sees it, so the newest one replaces the state, whatever its notificationType. The whole resource is
not kept here: it stands in the log at `from_position`.

What sessions bring is ordered within each; between two sessions of one agent (a recorder's and an
application's, or one before and one after a gap) GWS's own time decides, where it is given. After a gap a
snapshot of GWS replaces what was known before the session, never what the session itself has brought: and a
leg that it no longer names is over, at a time and for a cause that nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from service.events import CallsSnapshotTaken, NotificationReceived
from service.gws import dialect
from service.gws.answers import OK
from service.gws.messages import Call
from service.projections.notice import Notice, of_call
from service.projections.projection import Key, Recorded, Row, Sweep, metadata, storable

table = sa.Table(
    "call_state",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("call_id", sa.Text, primary_key=True),
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("from_position", sa.BigInteger, primary_key=True),
    sa.Column("to_position", sa.BigInteger),
    sa.Column("node", sa.BigInteger),
    sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("occurred_at", sa.DateTime(timezone=True)),
    sa.Column("session", sa.Uuid, nullable=False),
    sa.Column("agent", sa.Text),
    sa.Column("phone_number", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("conn_id", sa.Text),
    sa.Column("call_type", sa.Text),
    sa.Column("parent_call_id", sa.Text),
    sa.Column("participants", JSONB, nullable=False),
    sa.Column("user_data", JSONB, nullable=False),
    sa.Column("doubt", sa.Text),
)

SNAPSHOT = CallsSnapshotTaken.kind()
GONE = "gone from GWS after a gap: ended, time and cause unknown"
LIVE_LEG = "coalesce(state, '') NOT IN ('Released', 'Completed')"
"""SQL for a leg that is not over."""

assert set(dialect.OVER) == {"Released", "Completed"}

DESCRIBING = ("state", "conn_id", "call_type", "parent_call_id", "participants", "user_data")
described_by = itemgetter(*DESCRIBING)
described_and_told_by = itemgetter("agent", "phone_number", "doubt", *DESCRIBING)


class CallState:
    """The fold behind `call_state`."""

    name = "call_state"
    table = table
    key = ("call_id", "device")
    versioned = True
    kinds = frozenset({NotificationReceived.kind(), CallsSnapshotTaken.kind()})
    by_call = True
    sweeping = frozenset({CallsSnapshotTaken.kind()})
    early_indexes = (
        "(call_id, device) WHERE to_position IS NULL",
        f"(agent) WHERE to_position IS NULL AND {LIVE_LEG}",
    )

    def keys(self, recorded: Recorded) -> tuple[Key, ...]:
        if recorded.kind == SNAPSHOT:
            return tuple(dict.fromkeys(key for key, _ in snapshot_legs(recorded)))
        notice = recorded.notice
        if notice is None:
            return ()
        device = notice.device or notice.number or "unknown"
        return ((notice.call_id, device if recorded.clean else storable(device)),)

    def sweep(self, recorded: Recorded) -> Sweep | None:
        event = recorded.event
        if not isinstance(event, CallsSnapshotTaken) or snapshot_calls(recorded) is None:
            return None
        return Sweep(f"agent = $1 AND {LIVE_LEG}", event.agent)

    def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
        event = recorded.event
        if isinstance(event, CallsSnapshotTaken):
            return self._of_snapshot(key, row, event, recorded)
        notice = recorded.notice
        if notice is None or not isinstance(event, NotificationReceived):
            return row
        if not recorded.clean:
            notice = clean(notice)
        occurred_at = None if notice.millis is None else moment(notice.millis)
        if row is not None:
            if row["state"] == notice.state and said_before(row, event.agent, notice):
                return row
            if row["session"] != event.session and notice.state not in dialect.OVER:
                known = row["occurred_at"]
                if occurred_at and known and occurred_at < known:
                    return row  # another session had it earlier and told it later
        return {
            "call_id": key[0],
            "device": key[1],
            "from_at": recorded.recorded_at,
            "occurred_at": occurred_at,
            "session": event.session,
            "agent": event.agent,
            "phone_number": notice.number,
            "doubt": None,
            "state": notice.state,
            "conn_id": notice.conn_id,
            "call_type": notice.call_type,
            "parent_call_id": notice.parent_call_id,
            "participants": notice.participants,
            "user_data": notice.user_data,
        }

    def _of_snapshot(
        self, key: Key, row: Row | None, event: CallsSnapshotTaken, recorded: Recorded
    ) -> Row | None:
        if row is not None and row["session"] == event.session:
            return row  # this session has told of it already, and knows better
        base: dict[str, Any] = {
            "call_id": key[0],
            "device": key[1],
            "from_at": recorded.recorded_at,
            "occurred_at": None,
            "session": event.session,
        }
        for named, notice in snapshot_legs(recorded):
            if named == key:
                described = describe(clean(notice))
                if row is not None and described_by(row) == described:
                    return row
                return {
                    **base,
                    "agent": event.agent,
                    "phone_number": row["phone_number"] if row is not None else None,
                    "doubt": None,
                    **dict(zip(DESCRIBING, described, strict=True)),
                }
        if row is None or row["state"] in dialect.OVER:
            return row
        return {**row, **base, "state": dialect.RELEASED, "doubt": GONE}


def said_before(row: Row, agent: str | None, notice: Notice) -> bool:
    """Whether a notice says of a leg what is known of it."""
    return bool(described_and_told_by(row) == (agent, notice.number, None, *describe(notice)))


def describe(notice: Notice) -> tuple[Any, ...]:
    """What a notice says of a leg, in the order of DESCRIBING."""
    return (
        notice.state,
        notice.conn_id,
        notice.call_type,
        notice.parent_call_id,
        notice.participants,
        notice.user_data,
    )


def clean(notice: Notice) -> Notice:
    """A notice as Postgres takes it."""
    return msgspec.structs.replace(
        notice, **{name: storable(value) for name, value in msgspec.structs.asdict(notice).items()}
    )


def moment(millis: int) -> datetime | None:
    """A time from milliseconds since 1970; None for one that no calendar has."""
    try:
        return datetime.fromtimestamp(millis / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def snapshot_calls(recorded: Recorded) -> list[Any] | None:
    """The calls in a snapshot's answer; None if it is not one that says which calls there are."""
    document = recorded.document or {}
    calls = document.get("calls")
    return calls if document.get("statusCode") == OK and isinstance(calls, list) else None


def snapshot_legs(recorded: Recorded) -> Iterator[tuple[Key, Notice]]:
    """The legs that a snapshot names."""
    for resource in snapshot_calls(recorded) or ():
        call = Call(resource) if isinstance(resource, dict) else None
        if call is not None and call.id is not None:
            yield (call.id, storable(call.device or "unknown")), of_call(call)
