"""The life of a transfer, pure: `decide(state, command) -> events`, `evolve(state, event) -> state`.

All transfers of one call are decided together: they share a stream, and an append is conditional on that
stream's last position, so of two that race one wins. `ARROWS` is the whole of what can happen; the same
arrows stand as a diagram in `docs/transfers.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from service.errors import CallBusy, TransferSettled
from service.events import (
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
    CONTRADICTED = "contradicted"


ARROWS: Mapping[State | None, Mapping[type[TransferStep], State]] = {
    None: {TransferRequested: State.REQUESTED},
    State.REQUESTED: {
        TransferDispatched: State.DISPATCHED,
        TransferRejected: State.REJECTED,
        TransferAbandoned: State.ABANDONED,
    },
    State.DISPATCHED: {
        TransferNotSent: State.REQUESTED,
        TransferAccepted: State.ACCEPTED,
        TransferRejected: State.REJECTED,
        TransferInDoubt: State.IN_DOUBT,
    },
    State.ACCEPTED: {
        TransferConfirmed: State.CONFIRMED,
        TransferFailed: State.FAILED,
        TransferInDoubt: State.IN_DOUBT,
    },
    State.IN_DOUBT: {
        TransferAccepted: State.ACCEPTED,
        TransferRejected: State.REJECTED,
        TransferConfirmed: State.CONFIRMED,
        TransferFailed: State.FAILED,
        TransferAbandoned: State.ABANDONED,
    },
    State.CONFIRMED: {TransferContradicted: State.CONTRADICTED},
    State.FAILED: {TransferContradicted: State.CONTRADICTED},
}
"""From each state the events that may follow, and where they lead. No other arrow exists.

In doubt leads back to accepted or rejected when the answer comes after all, late: its dispatcher had stalled.
"""

FINAL = frozenset({State.REJECTED, State.CONFIRMED, State.FAILED, State.ABANDONED, State.CONTRADICTED})
UNANSWERED = frozenset({State.REQUESTED, State.DISPATCHED})
SETTLEABLE = frozenset({State.ACCEPTED, State.IN_DOUBT})
CONCLUDED = frozenset({State.CONFIRMED, State.FAILED})
CONCLUSIONS = TransferConfirmed | TransferFailed | TransferContradicted


@dataclass(frozen=True, slots=True)
class Transfer:
    """One transfer as its events tell it.

    `steps` counts its events. `answer` is GWS's, as it can be replayed; `answered_as` what it made of the
    transfer, accepted or rejected, whatever was found out later.
    """

    request: TransferRequested
    body: bytes
    state: State = State.REQUESTED
    steps: int = 1
    attempts: int = 0
    turn: UUID | None = None
    dispatched_position: int | None = None
    answer: Answer | None = None
    answered_as: State | None = None
    outcome: TransferStep | None = None

    @property
    def id(self) -> UUID:
        return self.request.transfer_id

    @property
    def evidence(self) -> tuple[int, ...]:
        """The positions that its conclusion rests on."""
        outcome = self.outcome
        return outcome.evidence if isinstance(outcome, CONCLUSIONS) else ()

    @property
    def is_open(self) -> bool:
        """Whether its caller cannot be told yet what GWS said, or whether it happened."""
        return self.state in UNANSWERED or self.state is State.IN_DOUBT

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

    @property
    def has_waiting(self) -> bool:
        """Whether a transfer of the call is still to be sent."""
        return any(transfer.state is State.REQUESTED for transfer in self.transfers.values())

    def is_free(self, *, but: UUID | None = None) -> bool:
        """Whether no transfer, other than `but`, waits for GWS's answer or for its turn before it."""
        for transfer in self.transfers.values():
            if transfer.id == but:
                return True
            if transfer.state in UNANSWERED:
                return False
        return True


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
    """Transfer the call. `keyed` requests are told apart by their Idempotency-Key alone.

    `at_once`: dispatch it in the same breath if the call is free; otherwise it waits its turn in the queue.
    """

    request: TransferRequested
    body: bytes
    at_once: bool = True


@dataclass(frozen=True, slots=True)
class Dispatch:
    """It is this transfer's turn; `turn` names who takes it, and is never drawn twice."""

    transfer_id: UUID
    now: datetime
    turn: UUID


@dataclass(frozen=True, slots=True)
class TakeAnswer:
    """GWS answered."""

    transfer_id: UUID
    answer: Answer


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Whether it happened is open: no answer will come, or no evidence was found of what was accepted."""

    transfer_id: UUID
    cause: str


@dataclass(frozen=True, slots=True)
class NothingSent:
    """Certainly nothing left; `attempts` is how many there may be in all."""

    transfer_id: UUID
    cause: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Evidence, or a person, says how it ended."""

    transfer_id: UUID
    finding: Finding


@dataclass(frozen=True, slots=True)
class Abandon:
    """A person closes a transfer of which no evidence can be had, or withdraws one that was never sent."""

    transfer_id: UUID
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Contradict:
    """Later evidence does not fit the outcome."""

    transfer_id: UUID
    finding: Finding


FollowUp = Dispatch | TakeAnswer | GiveUp | NothingSent | Settle | Abandon | Contradict
Command = Request | FollowUp


def decide(state: CallTransfers, command: Command) -> Sequence[TransferStep]:
    """What happens on `command`; nothing if it has been overtaken by what happened already.

    Raises:
        CallBusy: another transfer of the call is live and neither has an Idempotency-Key.

    """
    if isinstance(command, Request):
        live = state.live_without_key()
        if live is not None and not command.request.keyed:
            raise CallBusy(state.call_id, live.id)
        if command.at_once and state.is_free():
            return [command.request, TransferDispatched(transfer_id=command.request.transfer_id)]
        return [command.request]
    transfer = state.transfers.get(command.transfer_id)
    if transfer is None:
        return []
    event = _follow_up(state, transfer, command)
    return [event] if event is not None and type(event) in ARROWS.get(transfer.state, {}) else []


def check_open(transfer: Transfer, command: Settle | Abandon) -> None:
    """Refuse a person's decision on a transfer that is not open to it.

    Raises:
        TransferSettled: it has ended already, or its answer is still to come.

    """
    event = Abandon if isinstance(command, Abandon) else Settle
    allowed = {State.IN_DOUBT, State.REQUESTED} if event is Abandon else SETTLEABLE
    if transfer.state not in allowed:
        raise TransferSettled(transfer.id, transfer.state)


def _follow_up(state: CallTransfers, transfer: Transfer, command: FollowUp) -> TransferStep | None:
    match command:
        case Dispatch():
            return _dispatch(state, transfer, command)
        case TakeAnswer(transfer_id, answer):
            return _judge(transfer_id, answer)
        case GiveUp(transfer_id, cause):
            return TransferInDoubt(transfer_id=transfer_id, cause=cause)
        case NothingSent(transfer_id, cause, attempts):
            if transfer.state is State.DISPATCHED and transfer.attempts < attempts:
                return TransferNotSent(transfer_id=transfer_id, cause=cause)
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
        case Contradict(transfer_id, finding):
            return TransferContradicted(
                transfer_id=transfer_id, grade=finding.grade, evidence=finding.positions, why=finding.why
            )


def _dispatch(state: CallTransfers, transfer: Transfer, command: Dispatch) -> TransferStep | None:
    if transfer.state is not State.REQUESTED or not state.is_free(but=transfer.id):
        return None
    if transfer.request.expires_at is not None and command.now > transfer.request.expires_at:
        message = "its time was over before it could be sent"
        return TransferRejected(transfer_id=transfer.id, http_status=None, message=message)
    return TransferDispatched(transfer_id=transfer.id, attempt=transfer.attempts + 1, turn=command.turn)


def _judge(transfer_id: UUID, answer: Answer) -> TransferStep:
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
        transfers.setdefault(event.transfer_id, Transfer(event, body))
    elif isinstance(event, TransferStep) and (transfer := transfers.get(event.transfer_id)) is not None:
        following = ARROWS.get(transfer.state, {}).get(type(event))
        if following is not None:
            moved = replace(transfer, state=following, steps=transfer.steps + 1)
            transfers[transfer.id] = _with(moved, position, event, body)
    return CallTransfers(state.call_id, transfers, position)


def _with(transfer: Transfer, position: int, event: TransferStep, body: bytes) -> Transfer:
    """`transfer` with what `event` brings besides the state."""
    if isinstance(event, TransferDispatched):
        return replace(transfer, attempts=event.attempt, turn=event.turn, dispatched_position=position)
    if isinstance(event, TransferAccepted | TransferRejected | TransferInDoubt) and event.http_status:
        answer = Answer.of(event.http_status, event.content_type, body)
        answered_as = None if transfer.state is State.IN_DOUBT else transfer.state
        return replace(transfer, answer=answer, answered_as=answered_as, outcome=event)
    return replace(transfer, outcome=event)
