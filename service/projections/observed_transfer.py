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
from service.projections.observed import Told, beginning, called_off, dispatched, noticed, observe
from service.projections.projection import Key, Recorded, Row, Sweep, metadata, storable

table = sa.Table(
    "observed_transfer",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("call_id", sa.Text, primary_key=True),
    sa.Column("conn_id", sa.Text),
    sa.Column("transfers", JSONB, nullable=False),
    sa.Column("told", JSONB, nullable=False),
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
        memo = recorded.memo
        if memo is None or memo[0] != self.reason_key or memo[1] is not row:
            memo = recorded.memo = (self.reason_key, row, self._fold(key, row, recorded))
        return memo[2]

    def _fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
        if row is not None and recorded.position <= row["last_position"]:
            return row
        before: Any = row if row is not None else {**beginning(), "commanded": {}}
        event = recorded.event
        told: Told | None = None
        if isinstance(event, NotificationReceived):
            told = self._noticed(before, event, recorded)
        elif isinstance(event, TransferRequested):
            commanded = {**before["commanded"], str(event.transfer_id): storable(event.agent)}
            return {**before, "commanded": commanded, "call_id": key[0], "last_position": recorded.position}
        elif isinstance(event, TransferDispatched | TransferRejected | TransferFailed):
            agent = before["commanded"].get(str(event.transfer_id))
            if agent is not None:
                tell = dispatched if isinstance(event, TransferDispatched) else called_off
                told = tell(agent, recorded.position)
        after = before if told is None else observe(before, key[0], told)
        if after is before:
            return row
        return {**after, "call_id": key[0], "last_position": recorded.position}

    def _noticed(self, before: Any, event: NotificationReceived, recorded: Recorded) -> Told | None:
        notice = recorded.notice
        assert notice is not None
        if not recorded.clean:
            notice = clean(notice)
        at, position = recorded.recorded_at, recorded.position
        return noticed(before, event.agent, notice, position, at, reason_key=self.reason_key)
