"""The life of a transfer, pure: `decide(state, command) -> events`, `evolve(state, event) -> state`.

All transfers of one call are decided together: they share a stream, and an append is conditional on that
stream's last position, so of two that race one wins. `ARROWS` is the whole of what can happen:

    Requested ─▶ Dispatched ─┬─▶ Accepted ─┬─▶ Confirmed
                             │             └─▶ Failed
                             ├─▶ Rejected
                             └─▶ InDoubt ──┬─▶ Confirmed
                                           ├─▶ Failed
                                           └─▶ Abandoned
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from uuid import UUID

from service.errors import CallBusy
from service.events import (
    Event,
    TransferAbandoned,
    TransferAccepted,
    TransferConfirmed,
    TransferDispatched,
    TransferFailed,
    TransferInDoubt,
    TransferRejected,
    TransferRequested,
)
from service.gws import Answer, Verdict


class State(StrEnum):
    """Where a transfer stands."""

    REQUESTED = "requested"
    DISPATCHED = "dispatched"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    IN_DOUBT = "in_doubt"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    ABANDONED = "abandoned"


ARROWS: Mapping[State | None, Mapping[type[Event], State]] = {
    None: {TransferRequested: State.REQUESTED},
    State.REQUESTED: {TransferDispatched: State.DISPATCHED},
    State.DISPATCHED: {
        TransferAccepted: State.ACCEPTED,
        TransferRejected: State.REJECTED,
        TransferInDoubt: State.IN_DOUBT,
    },
    State.ACCEPTED: {TransferConfirmed: State.CONFIRMED, TransferFailed: State.FAILED},
    State.IN_DOUBT: {
        TransferConfirmed: State.CONFIRMED,
        TransferFailed: State.FAILED,
        TransferAbandoned: State.ABANDONED,
    },
}
"""From each state the events that may follow, and where they lead. No other arrow exists."""

FINAL = frozenset({State.REJECTED, State.CONFIRMED, State.FAILED, State.ABANDONED})
UNANSWERED = frozenset({State.REQUESTED, State.DISPATCHED})
SETTLEABLE = frozenset({State.ACCEPTED, State.IN_DOUBT})


@dataclass(frozen=True, slots=True)
class Transfer:
    """One transfer as its events tell it. `answer` is GWS's, as it can be replayed."""

    request: TransferRequested
    body: bytes
    state: State = State.REQUESTED
    dispatched_position: int | None = None
    answer: Answer | None = None
    outcome: Event | None = None

    @property
    def id(self) -> UUID:
        return self.request.transfer_id

    @property
    def is_live(self) -> bool:
        return self.state not in FINAL


@dataclass(frozen=True, slots=True)
class CallTransfers:
    """All transfers of one call, oldest first, and the last position of their stream (-1: none)."""

    call_id: str
    transfers: Mapping[UUID, Transfer] = field(default_factory=dict)
    version: int = -1

    def live_without_key(self) -> Transfer | None:
        """The live transfer that claims the natural key (call, destination)."""
        for transfer in self.transfers.values():
            if transfer.is_live and not transfer.request.keyed:
                return transfer
        return None


@dataclass(frozen=True, slots=True)
class Finding:
    """What evidence shows: done or not, how well, and at which positions."""

    happened: bool
    grade: str
    positions: tuple[int, ...]
    by: str = "evidence"
    why: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """Transfer the call. `keyed` requests are told apart by their Idempotency-Key alone."""

    request: TransferRequested


@dataclass(frozen=True, slots=True)
class TakeAnswer:
    """GWS answered."""

    transfer_id: UUID
    answer: Answer


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No answer will come. `sent` is False only if certainly nothing left."""

    transfer_id: UUID
    cause: str
    sent: bool


@dataclass(frozen=True, slots=True)
class Settle:
    """Evidence, or a person, says how it ended."""

    transfer_id: UUID
    finding: Finding


@dataclass(frozen=True, slots=True)
class Abandon:
    """A person closes a transfer of which no evidence can be had."""

    transfer_id: UUID
    by: str
    why: str


Command = Request | TakeAnswer | GiveUp | Settle | Abandon


def decide(state: CallTransfers, command: Command) -> Sequence[Event]:
    """What happens on `command`; nothing if it has been overtaken by what happened already.

    Raises:
        CallBusy: another transfer of the call is live and neither has an Idempotency-Key.

    """
    if isinstance(command, Request):
        live = state.live_without_key()
        if live is not None and not command.request.keyed:
            raise CallBusy(state.call_id, live.id)
        return [command.request, TransferDispatched(transfer_id=command.request.transfer_id)]
    transfer = state.transfers.get(command.transfer_id)
    event = _follow_up(command)
    if transfer is None or type(event) not in ARROWS.get(transfer.state, {}):
        return []
    return [event]


def _follow_up(command: TakeAnswer | GiveUp | Settle | Abandon) -> Event:
    match command:
        case TakeAnswer(transfer_id, answer):
            return _judge(transfer_id, answer)
        case GiveUp(transfer_id, cause, sent=True):
            return TransferInDoubt(transfer_id=transfer_id, cause=cause)
        case GiveUp(transfer_id, cause):
            return TransferRejected(transfer_id=transfer_id, http_status=None, message=cause)
        case Settle(transfer_id, finding):
            settled = TransferConfirmed if finding.happened else TransferFailed
            return settled(
                transfer_id=transfer_id,
                grade=finding.grade,
                evidence=finding.positions,
                settled_by=finding.by,
                why=finding.why,
            )
        case Abandon(transfer_id, by, why):
            return TransferAbandoned(transfer_id=transfer_id, settled_by=by, why=why)


def _judge(transfer_id: UUID, answer: Answer) -> Event:
    match answer.verdict:
        case Verdict.ACCEPTED:
            return TransferAccepted(
                transfer_id=transfer_id, http_status=answer.http_status, content_type=answer.content_type
            )
        case Verdict.REJECTED:
            return TransferRejected(
                transfer_id=transfer_id,
                http_status=answer.http_status,
                content_type=answer.content_type,
                status_code=answer.status_code,
                message=answer.message,
            )
        case Verdict.IN_DOUBT:
            return TransferInDoubt(
                transfer_id=transfer_id,
                cause=f"HTTP {answer.http_status}, statusCode {answer.status_code}: {answer.message}",
                http_status=answer.http_status,
                content_type=answer.content_type,
                status_code=answer.status_code,
            )


def evolve(state: CallTransfers, position: int, event: Event, body: bytes) -> CallTransfers:
    """The state after `event`, which stands at `position`. An event that has no arrow changes nothing."""
    transfers = dict(state.transfers)
    if isinstance(event, TransferRequested):
        transfers[event.transfer_id] = Transfer(event, body)
    else:
        transfer = transfers.get(getattr(event, "transfer_id", UUID(int=0)))
        following = ARROWS.get(transfer.state, {}).get(type(event)) if transfer else None
        if transfer is not None and following is not None:
            transfers[transfer.id] = _advance(transfer, following, position, event, body)
    return CallTransfers(state.call_id, transfers, position)


def _advance(transfer: Transfer, state: State, position: int, event: Event, body: bytes) -> Transfer:
    if isinstance(event, TransferDispatched):
        return replace(transfer, state=state, dispatched_position=position)
    if isinstance(event, TransferAccepted | TransferRejected | TransferInDoubt) and event.http_status:
        answer = Answer.of(event.http_status, event.content_type, body)
        return replace(transfer, state=state, answer=answer, outcome=event)
    return replace(transfer, state=state, outcome=event)
