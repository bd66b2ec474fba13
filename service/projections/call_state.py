"""`call_state`: every leg of every call, by interval of positions, so that any moment can be asked for.

A leg is (call id, device): two agents on one call share the id. Every notification carries the whole call as
its device sees it, so the newest one replaces the state, whatever its notificationType.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from service.events import NotificationReceived
from service.gws import Notification
from service.projections.projection import Key, Recorded, Row, metadata, storable

table = sa.Table(
    "call_state",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("call_id", sa.Text, primary_key=True),
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("from_position", sa.BigInteger, primary_key=True),
    sa.Column("to_position", sa.BigInteger),
    sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("occurred_at", sa.DateTime(timezone=True)),
    sa.Column("agent", sa.Text),
    sa.Column("phone_number", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("conn_id", sa.Text),
    sa.Column("call_type", sa.Text),
    sa.Column("participants", JSONB, nullable=False),
    sa.Column("user_data", JSONB, nullable=False),
    sa.Column("call", JSONB, nullable=False),
)

DESCRIBING = (
    "agent",
    "phone_number",
    "state",
    "conn_id",
    "call_type",
    "participants",
    "user_data",
    "call",
)


class CallState:
    """The fold behind `call_state`."""

    name = "call_state"
    table = table
    key = ("call_id", "device")
    versioned = True
    kinds = frozenset({NotificationReceived.kind()})

    def keys(self, recorded: Recorded) -> tuple[Key, ...]:
        notification = Notification.parse(recorded.body)
        call = notification.call if notification else None
        if notification is None or call is None or call.id is None:
            return ()
        return ((call.id, storable(call.device or notification.phone_number or "unknown")),)

    def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
        notification = Notification.parse(recorded.body)
        if notification is None or notification.call is None:
            return row
        call = notification.call
        event = recorded.event
        described = {
            "agent": event.agent if isinstance(event, NotificationReceived) else None,
            "phone_number": storable(notification.phone_number),
            "state": storable(call.state),
            "conn_id": storable(call.conn_id),
            "call_type": storable(call.call_type),
            "participants": storable(call.participants),
            "user_data": storable(call.user_data),
            "call": storable(call.document),
        }
        if row is not None and all(row[name] == described[name] for name in DESCRIBING):
            return row  # said twice
        return {
            "call_id": key[0],
            "device": key[1],
            "from_at": recorded.recorded_at,
            "occurred_at": notification.occurred_at,
            **described,
        }
