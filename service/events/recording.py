"""What was heard from GWS, and how far it can have been: told by the recorder and by the tap."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from service.events.event import Event

# From GWS


class NotificationReceived(Event, frozen=True):
    """CometD delivered one event; the body is its element of the response array, byte for byte.

    A redelivery makes the very same event: nothing here tells when or in which response it came.
    """

    session: UUID
    """The recorder's session, as its producer key."""
    agent: str | None
    count: int
    """How many events the session had brought before this one."""
    channel: str | None = None
    part: int = 1
    """An element that is too large for one event is cut into `parts`, in order."""
    parts: int = 1


class UnreadableReceived(Event, frozen=True):
    """Something that CometD sent could not be taken as what it should be; the body is its bytes, as evidence.

    A response that is no JSON, or a redelivery whose bytes differ from what was recorded first.
    """

    session: UUID
    agent: str | None
    received_at: datetime
    reason: str


# From the recorder


class SessionOpened(Event, frozen=True):
    """A CometD session began: from here on what happens is seen."""

    session: UUID
    agent: str
    at: datetime
    ack: bool
    """Whether the server redelivers what is not acknowledged."""
    channels: tuple[str, ...]
    transport: str = "long-polling"


class SessionResumed(Event, frozen=True):
    """A restarted process took up the session where it was left: nothing was missed."""

    session: UUID
    agent: str
    at: datetime


class SessionLost(Event, frozen=True):
    """The session is gone. What happened after `last_alive` may have been missed."""

    session: UUID
    agent: str
    at: datetime
    cause: str
    last_alive: datetime | None


class GapSuspected(Event, frozen=True):
    """A poll failed on a server that does not redeliver: something may have been lost since `last_alive`."""

    session: UUID
    agent: str
    at: datetime
    cause: str
    last_alive: datetime | None


class SessionClosed(Event, frozen=True):
    """We ended the session. Up to `at` nothing is missing."""

    session: UUID
    agent: str
    at: datetime
    reason: str


class SessionRefused(Event, frozen=True):
    """GWS does not let this agent in; it is tried again after a long pause."""

    session: UUID
    agent: str
    at: datetime
    cause: str


class CallsSnapshotTaken(Event, frozen=True):
    """What GWS said the agent's calls were, after a gap; the body is its answer to GET /me/calls."""

    session: UUID
    agent: str
    at: datetime
    http_status: int


class CallSnapshotTaken(Event, frozen=True):
    """What GWS said about one call when asked; the body is its answer to GET /me/calls/{id}."""

    call_id: str
    agent: str
    at: datetime
    http_status: int


# From the tap


class AgentIdentified(Event, frozen=True):
    """Who is behind a session that was not known until now: a CometD session's, or that of commands."""

    session: UUID
    agent: str
    at: datetime


class CommandObserved(Event, frozen=True):
    """An application commanded something through the tap, and GWS answered.

    The body is a JSON array of the request and the answer, each as it came, byte for byte; null where there
    is none or it is left out.
    """

    agent: str | None
    session: UUID
    """Stands for the HTTP session; `AgentIdentified` may tell later who is behind it."""
    method: str
    path: str
    at: datetime
    operation: str | None = None
    call_id: str | None = None
    http_status: int | None = None
    """None: no answer came."""
    status_code: int | None = None
    left_out: tuple[str, ...] = ()
    """What is not kept, or masked: `request` or `answer` (too large, or no JSON), or the name of a secret."""


class RecordingInterrupted(Event, frozen=True):
    """The log was away or slow, and the tap passed on what it could not record."""

    since: datetime
    until: datetime
    cause: str
    deliveries: int
    """Answers of CometD that may be missing; each agent's gap is told by events of its own."""
    commands: int
