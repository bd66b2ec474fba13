"""Which stream an event belongs to."""

from __future__ import annotations

from uuid import UUID

from service.gws import Notification


def call_stream(call_id: str) -> str:
    """The stream of what GWS said about a call."""
    return f"call-{call_id}"


def transfer_stream(call_id: str) -> str:
    """The stream of all transfers commanded on a call: they are decided together."""
    return f"transfer-{call_id}"


def session_stream(session: UUID) -> str:
    """The stream of a recorder's session."""
    return f"session-{session}"


def key_stream(digest: str) -> str:
    """The stream that a claimed Idempotency-Key has for itself; `digest` hides caller and key."""
    return f"key-{digest}"


VERIFICATION_STREAM = "verification"
"""The stream of all `LogVerified`."""
AUDIT_STREAM = "audit"
"""The stream of what was taken out of the record."""


def stream_of_notification(element: bytes, session: UUID) -> str:
    """Where a notification belongs: to its call, or to its session if it names none."""
    notification = Notification.parse(element)
    call = notification.call if notification else None
    return call_stream(call.id) if call and call.id else session_stream(session)
