"""`transfer_audit`: one row per commanded transfer: who, where, why, each step, the outcome, the evidence."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from service.events import (
    TRANSFER_STEPS,
    Event,
    TransferAbandoned,
    TransferAccepted,
    TransferConfirmed,
    TransferContradicted,
    TransferDispatched,
    TransferFailed,
    TransferInDoubt,
    TransferNotSent,
    TransferRejected,
    TransferRequested,
    TransferStep,
)
from service.log import rfc3339
from service.projections.projection import Key, Recorded, Row, Sweep, metadata, storable

table = sa.Table(
    "transfer_audit",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("transfer_id", sa.Uuid, primary_key=True),
    sa.Column("call_id", sa.Text, nullable=False),
    sa.Column("conn_id", sa.Text),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("door", sa.Text, nullable=False),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("location", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("user_data", JSONB, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("grade", sa.Text),
    sa.Column("status_code", sa.Integer),
    sa.Column("message", sa.Text),
    sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("dispatched_at", sa.DateTime(timezone=True)),
    sa.Column("answered_at", sa.DateTime(timezone=True)),
    sa.Column("settled_at", sa.DateTime(timezone=True)),
    sa.Column("steps", JSONB, nullable=False),
    sa.Column("evidence", JSONB, nullable=False),
    sa.Column("first_position", sa.BigInteger, nullable=False),
    sa.Column("last_position", sa.BigInteger, nullable=False),
)


class TransferAudit:
    """The fold behind `transfer_audit`. `reason_key` is the key of userData that holds the reason."""

    name = "transfer_audit"
    table = table
    key = ("transfer_id",)
    versioned = False
    kinds = frozenset(kind.kind() for kind in TRANSFER_STEPS)
    by_call = True
    sweeping = frozenset[str]()
    early_indexes = ()

    def __init__(self, reason_key: str = "TransferReason") -> None:
        self.reason_key = reason_key

    def keys(self, recorded: Recorded) -> tuple[Key, ...]:
        transfer_id: UUID = recorded.event.transfer_id  # type: ignore[attr-defined]
        return ((transfer_id,),)

    def sweep(self, recorded: Recorded) -> Sweep | None:  # noqa: ARG002 the protocol's
        return None

    def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:  # noqa: ARG002 the protocol's
        event = recorded.event
        if isinstance(event, TransferRequested):
            return row or self._requested(event, recorded)
        if row is None or not isinstance(event, TransferStep):
            return row  # its beginning is not in the log: nothing can be said
        if recorded.position <= row["last_position"]:
            return row  # folded already
        return {
            **row,
            **details(row, event, recorded),
            "outcome": event.step,
            "steps": [*row["steps"], step(event, recorded)],
            "last_position": recorded.position,
        }

    def _requested(self, event: TransferRequested, recorded: Recorded) -> Row:
        command = recorded.document or {}
        user_data = command.get("userData")
        user_data = user_data if isinstance(user_data, dict) else {}
        reason, location = user_data.get(self.reason_key), command.get("location")
        return {
            "transfer_id": event.transfer_id,
            "call_id": storable(event.call_id),
            "conn_id": storable(event.conn_id),
            "agent": storable(event.agent),
            "caller": storable(event.caller),
            "door": event.door,
            "destination": storable(event.destination),
            "location": storable(location) if isinstance(location, str) else None,
            "reason": None if reason is None else storable(str(reason)),
            "user_data": storable(user_data),
            "outcome": event.step,
            "grade": None,
            "status_code": None,
            "message": "; ".join(event.warnings) or None,
            "requested_at": recorded.recorded_at,
            "dispatched_at": None,
            "answered_at": None,
            "settled_at": None,
            "steps": [step(event, recorded)],
            "evidence": [],
            "first_position": recorded.position,
            "last_position": recorded.position,
        }


def details(row: Row, event: Event, recorded: Recorded) -> dict[str, Any]:
    """The columns, beside outcome and steps, that `event` sets in `row`."""
    at = recorded.recorded_at
    match event:
        case TransferDispatched():
            return {"dispatched_at": at}
        case TransferAccepted():
            return {"answered_at": at, "status_code": 0}
        case TransferRejected(status_code=code, message=message):
            return {"answered_at": at, "settled_at": at, "status_code": code, "message": storable(message)}
        case TransferNotSent(cause=cause):
            return {"message": storable(cause)}
        case TransferInDoubt(status_code=code, cause=cause):
            return {"status_code": code, "message": storable(cause)}
        case TransferConfirmed() | TransferFailed():
            return {
                "settled_at": at,
                "grade": event.grade,
                "evidence": list(event.evidence),
                **({"message": storable(event.why)} if event.why else {}),
            }
        case TransferContradicted():
            return {"evidence": [*row["evidence"], *event.evidence], "message": storable(event.why)}
        case TransferAbandoned(why=why):
            return {"settled_at": at, "message": storable(why)}
        case _:
            return {}


def step(event: TransferStep, recorded: Recorded) -> dict[str, Any]:
    """One step of the trail; `why` and `by` stay with it, whatever later steps say."""
    told: dict[str, Any] = {
        "step": event.step,
        "position": recorded.position,
        "at": rfc3339(recorded.recorded_at),
    }
    if why := why_of(event):
        told["why"] = storable(why)
    if isinstance(event, TransferConfirmed | TransferFailed | TransferAbandoned):
        told["by"] = storable(event.settled_by)
    return told


def why_of(event: TransferStep) -> str:
    """What an event says for itself: its warnings, its cause, what its conclusion rests on."""
    match event:
        case TransferRequested(warnings=warnings):
            return "; ".join(warnings)
        case TransferNotSent(cause=cause) | TransferInDoubt(cause=cause):
            return cause
        case TransferRejected(message=message):
            return message
        case TransferConfirmed() | TransferFailed() | TransferContradicted():
            return f"{event.grade}: {event.why}" if event.why else event.grade
        case TransferAbandoned(why=why):
            return why
        case _:
            return ""
