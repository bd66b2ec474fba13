"""The events of what is delivered, and their ids: made of the session and a count, never of the content."""

from __future__ import annotations

from uuid import UUID

from service.cometd import Message
from service.events import NotificationReceived, encode, session_stream, stream_of_notification
from service.log import NewEvent, Producer

PART_BYTES = 512 << 10
"""A larger element is cut: an event's payload is limited, and what GWS sent is kept whole."""


class Numbering:
    """The ids of one CometD session's events, and how many of them are durable."""

    def __init__(self, client_id: str, events: Producer, delivered: int = 0) -> None:
        self.client_id = client_id
        self.events = events
        self.delivered = delivered

    @property
    def session(self) -> UUID:
        return self.events.key

    def events_of(self, message: Message, agent: str, count: int) -> list[NewEvent]:
        """The events of one element, the first of them being the session's number `count`.

        They hold nothing that a redelivery would change.
        """
        parts = in_parts(message.raw)
        whole = len(parts) == 1
        stream = stream_of_notification(message.raw, self.session) if whole else session_stream(self.session)
        events = []
        for number, part in enumerate(parts):
            event = NotificationReceived(
                session=self.session,
                agent=agent,
                count=count + number,
                channel=None if message.channel is None else printable(message.channel),
                part=number + 1,
                parts=len(parts),
            )
            event_id = self.events.event_id(count + number)
            events.append(NewEvent(event_id, stream, event.kind(), encode(event, part)))
        return events


def in_parts(body: bytes) -> list[bytes]:
    """Cut what is too large for one event."""
    return [body[at : at + PART_BYTES] for at in range(0, len(body), PART_BYTES)]


def printable(channel: str) -> str:
    """The channel as text that JSON can hold: lone surrogates are replaced."""
    return channel.encode(errors="replace").decode()
