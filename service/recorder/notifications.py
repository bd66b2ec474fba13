"""The events of what CometD delivers, made in one way whoever receives it."""

from __future__ import annotations

from uuid import UUID

from service.cometd import Message
from service.events import NotificationReceived, encode, session_stream, stream_of_notification
from service.log import NewEvent, Producer

PART_BYTES = 512 << 10
"""A larger element is cut: an event's payload is limited, and what GWS sent is kept whole."""
CHANNEL_LIMIT = 1_000  # characters


def notifications(
    message: Message, ids: Producer, number: int, *, session: UUID, count: int, agent: str | None
) -> list[NewEvent]:
    """The events of one element: events `number` and following of `ids`, more than one if it is large.

    `count`: how many events the session had brought before. They hold nothing that a redelivery would change.
    """
    parts = in_parts(message.raw)
    whole = len(parts) == 1
    stream = stream_of_notification(message.raw, session) if whole else session_stream(session)
    events = []
    for at, part in enumerate(parts):
        event = NotificationReceived(
            session=session,
            agent=agent,
            count=count + at,
            channel=None if message.channel is None else printable(message.channel),
            part=at + 1,
            parts=len(parts),
        )
        events.append(NewEvent(ids.event_id(number + at), stream, event.kind(), encode(event, part)))
    return events


def in_parts(body: bytes) -> list[bytes]:
    """Cut what is too large for one event."""
    return [body[at : at + PART_BYTES] for at in range(0, len(body), PART_BYTES)]


def printable(channel: str) -> str:
    """The channel as text that JSON can hold: cut, lone surrogates replaced; the element has all of it."""
    return channel[:CHANNEL_LIMIT].encode(errors="replace").decode()
