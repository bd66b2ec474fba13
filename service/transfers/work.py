"""What is still to be done: the table `transfer_work`, kept in the transaction of each event.

It is a projection of the log and holds no truth of its own. One column says whose turn it is: until `due_at`
a transfer is its owner's (a claim, renewed while it works), or it is nobody's turn yet (a back-off, a settle
window). Afterwards anybody may take it up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from service.events import (
    TransferAccepted,
    TransferConfirmed,
    TransferDispatched,
    TransferFailed,
    TransferInDoubt,
    TransferNotSent,
    TransferRequested,
    TransferStep,
)
from service.log import Statement
from service.transfers.decider import CallTransfers, Transfer


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, and how many attempts.

    - `answer_s`: how long GWS may take to answer.
    - `settle_s`: the settle window: how long evidence is awaited before GWS is asked for the call.
    - `wait_s`: how long a caller waits for an outcome before it is told that there is none yet.
    - `lease_s`: how long a claim holds without being renewed.
    - `attempts`, `first_pause_s`: a request that certainly was not sent is tried so many times in all, with
      a pause that doubles.
    - `patience_s`: a request that could not be sent by then is not sent any more.
    - `watch_s`: how long a concluded transfer is watched for evidence to the contrary.
    """

    answer_s: float = 10.0
    settle_s: float = 20.0
    wait_s: float = 10.0
    lease_s: float = 5.0
    attempts: int = 4
    first_pause_s: float = 0.1
    patience_s: float = 60.0
    watch_s: float = 60.0


ENTER = "SELECT transfer_work_enter($1)"
MOVE = "SELECT transfer_work_move($1)"
CLOSE = "SELECT transfer_work_close($1)"
"""Functions, so that Postgres plans them once and not in every append."""

QUEUE = "transfer_queue"
"""The channel on which the queue hears that something may be to be sent."""


def telling(statement: str) -> str:
    """`statement`, and its commit tells the queue."""
    return f"{statement}, pg_notify('{QUEUE}', '')"


POSTPONE = "UPDATE transfer_work SET due_at = now() + make_interval(secs => $2) WHERE transfer_id = $1"

_CLAIMABLE = """
FROM transfer_work w
WHERE w.state = 'requested' AND w.agent = ANY($1::text[]) AND NOT EXISTS (
    SELECT 1 FROM transfer_work o
    WHERE o.call_id = w.call_id AND o.transfer_id <> w.transfer_id AND (
        o.state = 'dispatched' OR (o.state = 'requested' AND o.dispatched_position < w.dispatched_position)
    )
)
"""
"""Transfers to be sent for these agents that are the first of their call: per call one at a time.

First in the log, as the decider has it; ids are drawn before, and by the clocks of several machines.
"""

CLAIM = f"""
UPDATE transfer_work SET owner = $2, due_at = clock_timestamp() + make_interval(secs => $3)
WHERE transfer_id IN (
    SELECT w.transfer_id {_CLAIMABLE} AND w.due_at <= now()
    ORDER BY w.due_at LIMIT $4 FOR UPDATE OF w SKIP LOCKED
)
RETURNING transfer_id, call_id
"""  # noqa: S608 constants

NEXT_CLAIM = f"SELECT extract(epoch FROM min(w.due_at) - now())::float8 {_CLAIMABLE}"  # noqa: S608 constants

RENEW = """
UPDATE transfer_work SET due_at = clock_timestamp() + make_interval(secs => $3)
WHERE owner = $1 AND transfer_id = ANY($2::uuid[]) AND due_at > clock_timestamp()
RETURNING transfer_id
"""
"""A claim that is over cannot be renewed."""

HOLDS = """
SELECT true FROM transfer_work
WHERE transfer_id = $1 AND owner = $2 AND state = 'dispatched' AND due_at > clock_timestamp()
"""

TO_SETTLE = """
SELECT transfer_id, call_id, due_at <= now() AS due FROM transfer_work
WHERE state <> 'requested' AND due_at <= now()
UNION
SELECT w.transfer_id, w.call_id, w.due_at <= now() FROM event_log e
JOIN transfer_work w ON w.call_id = substr(e.stream, strpos(e.stream, '-') + 1)
WHERE e.position > $1 AND e.position <= $2
  AND (e.stream LIKE 'call-%' OR e.stream LIKE 'transfer-%') AND w.state <> 'requested'
"""
"""Those that are due, and those of whose call something was recorded between two positions."""

CALLLESS = """
SELECT position FROM event_log
WHERE position > $1 AND position <= $2 AND kind = 'NotificationReceived' AND stream LIKE 'session-%'
"""
"""Notifications that name no call, between two positions."""

SENT_BY = """
SELECT transfer_id, call_id FROM transfer_work
WHERE agent = $1 AND dispatched_position <= $2 AND state IN ('dispatched', 'accepted', 'in_doubt')
"""

ALL = """
SELECT transfer_id, call_id FROM transfer_work
WHERE state NOT IN ('requested', 'confirmed', 'failed') ORDER BY due_at
"""
"""Those that are sent and not concluded."""

FIRST_POSITION = "SELECT min(dispatched_position) FROM transfer_work"

NEXT_DUE = """
SELECT extract(epoch FROM min(due_at) - now())::float8 FROM transfer_work WHERE state <> 'requested'
"""

STREAM_OF = "SELECT stream FROM event_log WHERE event_id = $1 AND kind = 'TransferRequested'"


def followed(
    events: Sequence[TransferStep], state: CallTransfers, transfer: Transfer, owner: UUID, timing: Timing
) -> Statement:
    """The statement that goes with `events`, which led to `transfer` in `state`; `owner` is this process.

    The queue is told while the call has a transfer that waits: it may be its turn, or its due time is new.
    """
    change = _change(events, transfer, owner, timing)
    return change._replace(sql=telling(change.sql)) if state.has_waiting else change


def closing(transfer_id: UUID) -> Statement:
    """The statement after which nothing is to be done for a transfer."""
    return Statement(CLOSE, {"transfer_id": transfer_id})


def _change(events: Sequence[TransferStep], transfer: Transfer, owner: UUID, timing: Timing) -> Statement:
    match events[-1]:
        case TransferRequested():
            held_by, due_in_s = None, 0.0
        case TransferDispatched():
            held_by, due_in_s = owner, timing.lease_s
        case TransferNotSent():
            held_by, due_in_s = None, timing.first_pause_s * 2.0 ** (transfer.attempts - 1)
        case TransferAccepted() | TransferInDoubt():
            held_by, due_in_s = None, timing.settle_s
        case TransferConfirmed() | TransferFailed() as concluded if concluded.settled_by == "evidence":
            held_by, due_in_s = None, timing.watch_s
        case _:
            return closing(transfer.id)
    row = {"transfer_id": transfer.id, "state": transfer.state, "owner": held_by, "due_in_s": due_in_s}
    if isinstance(events[0], TransferRequested):
        row |= {"call_id": transfer.request.call_id, "agent": transfer.request.agent}
        return Statement(ENTER, row)
    return Statement(MOVE, row)
