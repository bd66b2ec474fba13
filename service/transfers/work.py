"""Transfers without a final outcome: the table `transfer_work`, kept in the transaction of each event.

It is a projection of the log and holds no truth of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from service.log import Statement
from service.transfers.decider import FINAL, State

OPEN = """
INSERT INTO transfer_work (transfer_id, call_id, agent, state, dispatched_position, due_at)
SELECT $1, $2, $3, $4, next_position, now() + make_interval(secs => $5) FROM log_head
ON CONFLICT (transfer_id) DO NOTHING
"""
"""Enters a transfer; `next_position` is then still the head before this append."""

MOVE = """
UPDATE transfer_work SET state = $2, due_at = now() + make_interval(secs => $3) WHERE transfer_id = $1
"""

CLOSE = "DELETE FROM transfer_work WHERE transfer_id = $1"

POSTPONE = "UPDATE transfer_work SET due_at = now() + make_interval(secs => $2) WHERE transfer_id = $1"

TO_SETTLE = """
SELECT w.transfer_id, w.call_id, w.due_at <= now() AS due FROM transfer_work w
WHERE w.due_at <= now() OR EXISTS (
    SELECT 1 FROM event_log e
    WHERE e.stream = 'call-' || w.call_id AND e.position > GREATEST(w.dispatched_position, $1)
)
ORDER BY w.due_at
"""
"""Those that are due, and those of whose call something was recorded after position $1."""

ALL = "SELECT transfer_id, call_id FROM transfer_work ORDER BY due_at"

NEXT_DUE = "SELECT extract(epoch FROM min(due_at) - now())::float8 FROM transfer_work"


def opened(transfer_id: UUID, call_id: str, agent: str, answer_within_s: float) -> Statement:
    return Statement(OPEN, (transfer_id, call_id, agent, State.DISPATCHED, answer_within_s))


def moved(transfer_id: UUID, state: State, due_in_s: float) -> Sequence[Statement]:
    """The statement that goes with an event that led to `state`."""
    if state in FINAL:
        return [Statement(CLOSE, (transfer_id,))]
    return [Statement(MOVE, (transfer_id, state, due_in_s))]
