"""What the record says about a dispatched transfer, pure. Grades after the evidence's strength.

GWS gives neither correlation id nor outcome: whether a transfer happened is read from the calls themselves
(which agent sees what is in `docs/transfers.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.events import CallSnapshotTaken, Event, NotificationReceived
from service.gws import Answer, Notification, dialect
from service.gws.answers import OK, RESOURCE_NOT_FOUND
from service.gws.messages import Call
from service.transfers.decider import Finding, Transfer


class Grade(StrEnum):
    """What a conclusion rests on."""

    DESTINATION_SEEN = "destination's leg seen"
    LEG_RELEASED = "own leg released"
    CALL_GONE = "call gone from GWS"
    ERROR_NOTIFIED = "error notification"
    STILL_THERE = "call still there after the settle window"


@dataclass(frozen=True, slots=True)
class Seen:
    """One event of the call's stream."""

    position: int
    event: Event
    body: bytes


def judge(transfer: Transfer, stream: Sequence[Seen], *, window_over: bool) -> Finding | None:
    """What `stream`, the call's events after the dispatch, shows of `transfer`; None if it shows nothing yet.

    Only once the settle window is over does "GWS still has the call" or "GWS no longer has it" count: within
    it the operation may be under way.
    """
    for seen in stream:
        finding = _of_notification(transfer, seen)
        if finding is not None:
            return finding
    if window_over:
        for seen in reversed(stream):
            if isinstance(seen.event, CallSnapshotTaken) and seen.event.agent == transfer.request.agent:
                return _of_snapshot(seen)
    return None


def _of_notification(transfer: Transfer, seen: Seen) -> Finding | None:
    if not isinstance(seen.event, NotificationReceived):
        return None
    notification = Notification.parse(seen.body)
    if notification is None or notification.call is None:
        return None
    state = notification.call.state
    if notification.phone_number == transfer.request.destination:
        if state in {dialect.RINGING, dialect.ESTABLISHED, dialect.DIALING}:
            return Finding(True, Grade.DESTINATION_SEEN, (seen.position,))
        return None
    if seen.event.agent != transfer.request.agent:
        return None
    if notification.is_error:
        return Finding(False, Grade.ERROR_NOTIFIED, (seen.position,), why=notification.error_text)
    if state in dialect.OVER:
        return Finding(True, Grade.LEG_RELEASED, (seen.position,))
    return None


def _of_snapshot(seen: Seen) -> Finding | None:
    answer = Answer.of(
        seen.event.http_status if isinstance(seen.event, CallSnapshotTaken) else 0, "", seen.body
    )
    if answer.status_code == RESOURCE_NOT_FOUND:
        return Finding(True, Grade.CALL_GONE, (seen.position,))
    document = (answer.document or {}).get("call")
    if answer.status_code != OK or not isinstance(document, dict):
        return None
    if Call(document).state in dialect.OVER:
        return Finding(True, Grade.LEG_RELEASED, (seen.position,))
    return Finding(False, Grade.STILL_THERE, (seen.position,), why=f"state {Call(document).state}")
