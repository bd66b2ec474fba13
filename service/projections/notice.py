"""What folds read in a call notification.

The same as `service.gws.Notification` says, read in one pass that skips everything else: folding the whole
log parses every notification there is. Where the text is not of the usual types, `Notification` itself is
asked, which takes whatever comes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from service.gws import Notification
from service.gws.messages import LONGEST_ID, Call

TRANSFERABLE = "CompleteTransfer"
"""A capability that a leg has only while a consult call is there to complete a transfer with."""


class Notice(msgspec.Struct, gc=False):
    """A call as one device sees it at one moment. None: not told."""

    call_id: str
    device: str | None
    number: str | None
    """The agent's own."""
    why: str | None
    """The notificationType."""
    state: str | None
    conn_id: str | None
    call_type: str | None
    parent_call_id: str | None
    participants: list[str]
    user_data: dict[str, Any]
    may_complete: bool
    millis: int | None
    """GWS's own time, in milliseconds since 1970."""


class _Participant(msgspec.Struct, gc=False):
    phoneNumber: str | None = None  # noqa: N815 GWS's name


class _Resource(msgspec.Struct, gc=False):
    id: str
    state: str | None = None
    connId: str | None = None  # noqa: N815 GWS's name
    callType: str | None = None  # noqa: N815 GWS's name
    deviceUri: str | None = None  # noqa: N815 GWS's name
    parentCallUri: str | None = None  # noqa: N815 GWS's name
    participants: list[_Participant | str] = []
    capabilities: list[str] = []
    userData: dict[str, Any] = {}  # noqa: N815 GWS's name


class _Processing(msgspec.Struct, gc=False):
    serverGenerationTimestamp: int | None = None  # noqa: N815 GWS's name


class _Metrics(msgspec.Struct, gc=False):
    eventProcessing: _Processing | None = None  # noqa: N815 GWS's name


class _Data(msgspec.Struct, gc=False):
    call: _Resource
    phoneNumber: str | None = None  # noqa: N815 GWS's name
    notificationType: str | None = None  # noqa: N815 GWS's name
    metrics: _Metrics | None = None


class _Element(msgspec.Struct, gc=False):
    data: _Data


_decode = msgspec.json.Decoder(_Element).decode


def read_notice(body: bytes) -> Notice | None:
    """The call that a notification tells of; None if it tells of none that has a usable id."""
    try:
        data = _decode(body).data
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _read_anything(body)
    call = data.call
    call_id = call.id
    if not call_id or len(call_id) > LONGEST_ID or not call_id.isprintable():
        return None
    metrics = data.metrics
    return Notice(
        call_id,
        last_part(call.deviceUri),
        data.phoneNumber,
        data.notificationType,
        call.state,
        call.connId,
        call.callType,
        last_part(call.parentCallUri),
        [
            number
            for one in call.participants
            if (number := one if isinstance(one, str) else one.phoneNumber) is not None
        ],
        call.userData,
        TRANSFERABLE in call.capabilities,
        metrics.eventProcessing.serverGenerationTimestamp if metrics and metrics.eventProcessing else None,
    )


def _read_anything(body: bytes) -> Notice | None:
    notification = Notification.parse(body)
    call = notification.call if notification else None
    if notification is None or call is None or call.id is None:
        return None
    occurred_at = notification.occurred_at
    return of_call(
        call,
        number=notification.phone_number,
        why=notification.notification_type,
        occurred_at=occurred_at,
    )


def of_call(
    call: Call,
    *,
    number: str | None = None,
    why: str | None = None,
    occurred_at: datetime | None = None,
) -> Notice:
    """The notice of a call resource that has an id, wherever it stands."""
    assert call.id is not None
    parent = call.document.get("parentCallUri")
    return Notice(
        call.id,
        call.device,
        number,
        why,
        call.state,
        call.conn_id,
        call.call_type,
        last_part(parent) if isinstance(parent, str) else None,
        list(call.participants),
        dict(call.user_data),
        TRANSFERABLE in call.capabilities,
        None if occurred_at is None else round(occurred_at.timestamp() * 1000),
    )


def last_part(uri: str | None) -> str | None:
    """The id at the end of a URI (hosts differ behind balancers)."""
    return uri.rstrip("/").rpartition("/")[2] if uri else None
