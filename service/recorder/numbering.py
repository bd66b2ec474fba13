"""The numbering of what a session delivers: the ids are made of it and a count, never of the content."""

from __future__ import annotations

from uuid import UUID

from service.log import Producer


class Numbering:
    """The ids of one CometD session's events, and how many of them are durable."""

    def __init__(self, client_id: str, events: Producer, delivered: int = 0) -> None:
        self.client_id = client_id
        self.events = events
        self.delivered = delivered

    @property
    def session(self) -> UUID:
        return self.events.key
