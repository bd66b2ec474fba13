"""What the record says about a dispatched transfer, pure. Grades after the evidence's strength.

GWS gives neither correlation id nor outcome: whether a transfer happened is read from the calls themselves
(which agent sees what is in `docs/transfers.md`). What GWS told before the dispatch, by its own clock, is old
news whenever it arrives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from service.events import (
    CallSnapshotTaken,
    Event,
    NotificationReceived,
    TransferConfirmed,
    TransferContradicted,
    TransferFailed,
    TransferNotSent,
    TransferRejected,
    decode,
)
from service.gws import Answer, Notification, dialect
from service.gws.answers import OK, RESOURCE_NOT_FOUND, parse_object
from service.gws.messages import Call
from service.log import StoredEvent
from service.transfers.decider import CallTransfers, Finding, State, Transfer


class Grade(StrEnum):
    """What a conclusion rests on, the strongest first."""

    DESTINATION_SEEN = "destination's leg seen"
    LEG_RELEASED_WITH_DATA = "own leg released with the transfer's userData"
    CALL_RETURNED = "call came back to the agent"
    LEG_RELEASED = "own leg released"
    ERROR_NOTIFIED = "error notification"
    STILL_THERE = "call still there after the settle window"
    CALL_GONE = "call gone from GWS"


@dataclass(frozen=True, slots=True)
class Seen:
    """One event of the call's stream, or an error notification that names no call."""

    position: int
    event: Event
    body: bytes

    @classmethod
    def of(cls, stored: StoredEvent) -> Seen | None:
        decoded = decode(stored.kind, stored.payload)
        return None if decoded is None else cls(stored.position, *decoded)


@dataclass(frozen=True, slots=True)
class Sight:
    """What one notification shows of the call: whose leg, in which state, when by GWS's clock."""

    position: int
    agent: str | None
    number: str | None
    call: Call
    at: datetime | None
    error: str | None

    @classmethod
    def of(cls, seen: Seen) -> Sight | None:
        if not isinstance(seen.event, NotificationReceived):
            return None
        notification = Notification.parse(seen.body)
        if notification is None or notification.call is None:
            return None
        error = notification.error_text if notification.is_error else None
        number, at = notification.phone_number, notification.occurred_at
        return cls(seen.position, seen.event.agent, number, notification.call, at, error)


def judge(
    state: CallTransfers,
    transfer: Transfer,
    stream: Sequence[Seen],
    *,
    errors: Sequence[Seen] = (),
    window_over: bool,
) -> Finding | None:
    """What `stream`, the call's events after the dispatch, shows of `transfer`; None if it shows nothing yet.

    `errors` are notifications of failed operations that name no call and can only be about this transfer;
    they count once a snapshot shows that the call is still there. Only when the settle window is over do the
    weak signs count: GWS still has the call, no longer has it, or an unanswered request's leg is released.

    What another transfer of the call may have brought about shows nothing of this one.
    """
    others = [other for other in state.transfers.values() if other.id != transfer.id]
    for finding in _findings(transfer, stream, errors, window_over=window_over):
        if not any(_explains(other, finding, transfer) for other in others):
            return finding
    return None


def _explains(other: Transfer, finding: Finding, transfer: Transfer) -> bool:
    """Whether what was found of `transfer` could as well be the doing of `other`."""
    never_sent = other.dispatched_position is None
    if never_sent or isinstance(other.outcome, TransferRejected | TransferNotSent):
        return False
    if finding.grade == Grade.ERROR_NOTIFIED:
        return True
    if not finding.happened or not _may_stand(other, before=transfer.dispatched_position or 0):
        return False
    names_destination = finding.grade == Grade.DESTINATION_SEEN
    return not names_destination or other.request.destination == transfer.request.destination


def _may_stand(other: Transfer, *, before: int) -> bool:
    """Whether `other` may have been executed, and the call had not come back before a position."""
    match other.outcome:
        case TransferFailed(settled_by="evidence"):
            return False
        case TransferConfirmed(grade=Grade.CALL_RETURNED) | TransferContradicted(grade=Grade.CALL_RETURNED):
            return max(other.evidence) > before
        case _:
            return True


def _findings(
    transfer: Transfer, stream: Sequence[Seen], errors: Sequence[Seen], *, window_over: bool
) -> Iterator[Finding]:
    """What may be concluded of `transfer`, looked at alone, the most telling first."""
    sights = [sight for seen in stream if (sight := Sight.of(seen)) is not None and _is_news(sight, transfer)]
    for sight in sights:
        if (shown := _shown(transfer, sight)) is not None:
            yield shown
    released = _own_release(transfer, sights)
    if released is not None and (window_over or transfer.state is State.ACCEPTED):
        yield released
    asked = _snapshot(transfer, stream, sights, errors, window_over=window_over)
    if asked is not None:
        yield asked


def contradict(state: CallTransfers, transfer: Transfer, stream: Sequence[Seen]) -> Finding | None:
    """What in `stream`, the call's events after the conclusion's evidence, does not fit the conclusion."""
    since = _told_at(transfer, stream)
    rested_on = max(transfer.evidence, default=-1)
    for seen in stream:
        sight = Sight.of(seen) if seen.position > rested_on else None
        if sight is None or sight.error is not None or is_older(sight.at, since):
            continue
        if transfer.state is State.FAILED and _is_at_destination(transfer, sight):
            if not _repeated(state, transfer, sight.position):
                why = f"{sight.number} has the call"
                return Finding(True, Grade.DESTINATION_SEEN, (sight.position,), why=why)
        elif transfer.state is State.CONFIRMED and _is_own(transfer, sight):
            newer = sight.at is not None and since is not None and sight.at > since
            rings = sight.call.state == dialect.RINGING
            if (newer and (rings or sight.call.state in dialect.TALKING)) or (rings and sight.at is None):
                why = f"the call is {sight.call.state} at the agent"
                return Finding(False, Grade.CALL_RETURNED, (sight.position,), why=why)
    return None


def _is_news(sight: Sight, transfer: Transfer) -> bool:
    """Whether it tells of a moment after that in which the leg was last seen before the command, if known."""
    at, seen_at = sight.at, transfer.request.seen_at
    return at is None or seen_at is None or at > seen_at


def is_older(at: datetime | None, than: datetime | None) -> bool:
    """Whether one moment of GWS's clock is before another, as far as both are known."""
    return at is not None and than is not None and at < than


def _is_own(transfer: Transfer, sight: Sight) -> bool:
    return sight.agent == transfer.request.agent and sight.number != transfer.request.destination


def _is_at_destination(transfer: Transfer, sight: Sight) -> bool:
    arrived = {dialect.RINGING, dialect.ESTABLISHED, dialect.HELD}
    return sight.number == transfer.request.destination and sight.call.state in arrived


def _shown(transfer: Transfer, sight: Sight) -> Finding | None:
    """What a single notification proves, whenever it comes."""
    at = (sight.position,)
    if sight.error is None and _is_at_destination(transfer, sight):
        return Finding(True, Grade.DESTINATION_SEEN, at)
    if not _is_own(transfer, sight):
        return None
    if sight.error is not None:
        if sight.call.state in dialect.OVER:
            return None  # an error about a call that is gone says nothing of how it went
        return Finding(False, Grade.ERROR_NOTIFIED, at, why=sight.error)
    if sight.call.state in dialect.OVER and commanded_data(transfer) and _carries(sight.call, transfer):
        return Finding(True, Grade.LEG_RELEASED_WITH_DATA, at)
    if sight.call.state == dialect.RINGING and transfer.request.seen_state in dialect.TALKING:
        return Finding(True, Grade.CALL_RETURNED, at, why="it rings at the agent again")
    return None


def _own_release(transfer: Transfer, sights: Sequence[Sight]) -> Finding | None:
    """The agent's leg released, unless it looks like the end of the call.

    A hang-up releases the leg just as a transfer does. It shows where the transfer's userData is missing
    from the leg, or where another party's leg is released too and the destination's never came.
    """
    own = [sight for sight in sights if _is_own(transfer, sight) and sight.call.state in dialect.OVER]
    ended = any(
        sight.agent != transfer.request.agent and sight.call.state in dialect.OVER for sight in sights
    )
    if not own or ended or commanded_data(transfer):
        return None
    return Finding(True, Grade.LEG_RELEASED, (own[0].position,))


def _snapshot(
    transfer: Transfer,
    stream: Sequence[Seen],
    sights: Sequence[Sight],
    errors: Sequence[Seen],
    *,
    window_over: bool,
) -> Finding | None:
    """What the newest answer of GWS to "how is this call?" shows."""
    newest = next(
        (
            seen
            for seen in reversed(stream)
            if isinstance(seen.event, CallSnapshotTaken) and seen.event.agent == transfer.request.agent
        ),
        None,
    )
    if newest is None or not isinstance(newest.event, CallSnapshotTaken):
        return None
    at = newest.position
    answer = Answer.of(newest.event.http_status, "", newest.body)
    if answer.status_code == RESOURCE_NOT_FOUND:
        over = any(sight.call.state in dialect.OVER for sight in sights)
        return Finding(True, Grade.CALL_GONE, (at,)) if window_over and not over else None
    document = (answer.document or {}).get("call")
    if answer.status_code != OK or not isinstance(document, dict):
        return None
    state = Call(document).state
    if state in dialect.TALKING:
        told = [seen for seen in errors if seen.position < at]
        if told:
            why = error_text(told[-1])
            return Finding(False, Grade.ERROR_NOTIFIED, (told[-1].position, at), why=why)
        if window_over:
            return Finding(False, Grade.STILL_THERE, (at,), why=f"state {state}")
    if state == dialect.RINGING and transfer.request.seen_state in dialect.TALKING and window_over:
        return Finding(True, Grade.CALL_RETURNED, (at,), why="it rings at the agent again")
    return None


def is_error(seen: Seen) -> bool:
    notification = Notification.parse(seen.body)
    return notification is not None and notification.is_error


def error_text(seen: Seen) -> str:
    notification = Notification.parse(seen.body)
    return notification.error_text if notification is not None else ""


def commanded_data(transfer: Transfer) -> dict[str, Any]:
    """The userData that the transfer was to attach."""
    value = (parse_object(transfer.body) or {}).get("userData")
    return value if isinstance(value, dict) else {}


def _carries(call: Call, transfer: Transfer) -> bool:
    return all(
        name in call.user_data and call.user_data[name] == value
        for name, value in commanded_data(transfer).items()
    )


def _told_at(transfer: Transfer, stream: Sequence[Seen]) -> datetime | None:
    """The moment, by GWS's clock, up to which what was told agrees with the conclusion.

    It is that of the evidence, of the release that a confirmed transfer brings, or of the last look at the
    leg before the command; what comes late may be of any moment before. None: no moment is known.
    """
    known = [transfer.request.seen_at]
    confirmed = transfer.state is State.CONFIRMED
    for seen in stream:
        sight = Sight.of(seen)
        if sight is not None:
            over = confirmed and _is_own(transfer, sight) and sight.call.state in dialect.OVER
            known.append(sight.at if over or seen.position in transfer.evidence else None)
    return max((at for at in known if at is not None), default=None)


def _repeated(state: CallTransfers, transfer: Transfer, before: int) -> bool:
    """Whether a later transfer of the call to the same destination was dispatched before a position."""
    return any(
        other.id != transfer.id
        and other.request.destination == transfer.request.destination
        and other.dispatched_position is not None
        and (transfer.dispatched_position or 0) < other.dispatched_position < before
        for other in state.transfers.values()
    )
