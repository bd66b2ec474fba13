"""`observed_transfer`: one row per call, with the transfers on it that nobody commanded through us.

The rules are in `service.projections.observed`. Beside what was found, a row keeps what the rules need to
know of the call's legs, so that the fold can go on from it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from service.events import (
    NotificationReceived,
    TransferDispatched,
    TransferFailed,
    TransferRejected,
    TransferRequested,
)
from service.projections.call_state import clean
from service.projections.observed import Moment, beginning, called_off, dispatched, observe
from service.projections.projection import Key, Recorded, Row, Sweep, metadata, storable

table = sa.Table(
    "observed_transfer",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("call_id", sa.Text, primary_key=True),
    sa.Column("conn_id", sa.Text),
    sa.Column("transfers", JSONB, nullable=False),
    sa.Column("legs", JSONB, nullable=False),
    sa.Column("commanded", JSONB, nullable=False),
    sa.Column("dispatched", JSONB, nullable=False),
    sa.Column("last_position", sa.BigInteger, nullable=False),
)

STREAM = "transfer-"


class ObservedTransfer:
    """The fold behind `observed_transfer`. `reason_key`: see `TransferAudit`."""

    name = "observed_transfer"
    table = table
    key = ("call_id",)
    versioned = False
    kinds = frozenset(
        kind.kind()
        for kind in (
            NotificationReceived,
            TransferRequested,
            TransferDispatched,
            TransferRejected,
            TransferFailed,
        )
    )
    by_call = True
    sweeping = frozenset[str]()
    early_indexes = ("(call_id)",)

    def __init__(self, reason_key: str = "TransferReason") -> None:
        self.reason_key = reason_key

    def keys(self, recorded: Recorded) -> tuple[Key, ...]:
        if isinstance(recorded.event, NotificationReceived):
            notice = recorded.notice
            return () if notice is None else ((notice.call_id,),)
        return ((storable(recorded.stream.removeprefix(STREAM)),),)

    def sweep(self, recorded: Recorded) -> Sweep | None:  # noqa: ARG002 the protocol's
        return None

    def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
        event = recorded.event
        if row is not None and recorded.position <= row["last_position"]:
            return row
        before: Any = row if row is not None else {**beginning(), "commanded": {}}
        match event:
            case NotificationReceived(agent=agent):
                notice = recorded.notice
                assert notice is not None
                if not recorded.clean:
                    notice = clean(notice)
                moment = Moment(recorded.position, recorded.recorded_at, notice.millis)
                after = observe(before, key[0], agent, notice, moment, reason_key=self.reason_key)
            case TransferRequested(transfer_id=transfer_id, agent=agent):
                commanded = {**before["commanded"], str(transfer_id): storable(agent)}
                after = {**before, "commanded": commanded}
            case TransferDispatched(transfer_id=transfer_id):
                agent = before["commanded"].get(str(transfer_id))
                after = before if agent is None else dispatched(before, agent, recorded.position)
            case TransferRejected(transfer_id=transfer_id) | TransferFailed(transfer_id=transfer_id):
                agent = before["commanded"].get(str(transfer_id))
                after = before if agent is None else called_off(before, agent)
            case _:
                return row
        if after is before:
            return row
        return {**after, "call_id": key[0], "last_position": recorded.position}
