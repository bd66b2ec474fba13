"""One agent's recording: what CometD delivers, and every fact about the session, becomes an event.

A delivery is confirmed, and thereby acknowledged to the server, only when its events are durable. An event's
id is made of the session and of the count of events made durable in it before, so a redelivery (a lost
response, or an append whose outcome is unknown) gets the same ids again and the log recognises it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from service.cometd import (
    Client,
    Delivery,
    Evidence,
    Item,
    Lost,
    MultipleClients,
    Opened,
    PossibleGap,
    Refused,
    Resumed,
    Stopped,
)
from service.config import Agent
from service.errors import DatabaseError, EventIdReused, GwsError
from service.events import (
    CallsSnapshotTaken,
    Event,
    GapSuspected,
    NotificationReceived,
    SessionClosed,
    SessionLost,
    SessionOpened,
    SessionRefused,
    SessionResumed,
    UnreadableReceived,
    encode,
    session_stream,
    stream_of_notification,
)
from service.gws import GwsClient
from service.log import EventLog, NewEvent, Producer
from service.loops import Loop

logger = logging.getLogger(__name__)


class Status(StrEnum):
    """Where an agent's recording stands, for people."""

    STARTING = "starting"
    OPEN = "open"
    LOST = "lost"
    REFUSED = "refused"
    STOPPED = "stopped"


class Numbering:
    """The ids of one CometD session: `events` are what it delivered, `facts` what we say about it."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.events = Producer.new()
        self.delivered = 0

    @property
    def session(self) -> UUID:
        return self.events.key


class AgentRecorder:
    """Records one agent. `connect` makes a fresh CometD client for the agent."""

    def __init__(self, agent: Agent, gws: GwsClient, log: EventLog, connect: Callable[[], Client]) -> None:
        self.agent = agent
        self.status = Status.STARTING
        self.reason = ""
        self.loop = Loop(f"recorder {agent.user}", self._run)
        self._gws = gws
        self._log = log
        self._connect = connect
        self._client: Client | None = None
        self._numbering = Numbering("")
        self._unwritten: list[NewEvent] = []
        self._stopping = False

    def close(self) -> None:
        """Begin to end the session in good order; the loop ends by itself when it is done."""
        self._stopping = True
        if self._client is not None:
            self._client.close()

    async def _run(self, loop: Loop) -> None:
        while not self._stopping:
            self._client = self._connect()
            async for item in self._client.deliveries():
                loop.beat()
                await self._take(item)

    async def _take(self, item: Item) -> None:
        if isinstance(item, Delivery):
            await self._deliver(item)
            return
        event, body = self._describe(item)
        if event is not None:
            self._unwritten.append(
                NewEvent(
                    Producer.new().key,
                    session_stream(self._numbering.session),
                    event.kind(),
                    encode(event, body),
                )
            )
        await self._write_facts()
        if isinstance(item, Opened):
            await self._begin()

    async def _deliver(self, delivery: Delivery) -> None:
        """Make a delivery durable, or leave it unconfirmed: then it comes again."""
        numbering = self._number(delivery.client_id)
        events = [
            self._event(message.raw, message.channel, numbering.delivered + index)
            for index, message in enumerate(delivery.messages)
        ]
        try:
            await self._append([*self._unwritten, *events])
        except DatabaseError as error:
            logger.warning(
                "a delivery is not durable and will come again",
                extra={"agent": self.agent.user, "attempt": delivery.attempt, "fault": str(error)},
            )
            return
        self._unwritten.clear()
        numbering.delivered += len(events)
        delivery.confirm()

    def _event(self, raw: bytes, channel: str | None, count: int) -> NewEvent:
        """The event of one element. It holds nothing that a redelivery would change."""
        event = NotificationReceived(
            session=self._numbering.session,
            agent=self.agent.user,
            count=count,
            channel=channel,
        )
        return NewEvent(
            self._numbering.events.event_id(count),
            stream_of_notification(raw, self._numbering.session),
            event.kind(),
            encode(event, raw),
        )

    async def _append(self, events: list[NewEvent]) -> None:
        try:
            await self._log.append(events)
        except EventIdReused:
            for event in events:
                await self._append_one(event)

    async def _append_one(self, event: NewEvent) -> None:
        """Append an event that may be a redelivery with other bytes: the first is kept, this is evidence."""
        try:
            await self._log.append([event])
        except EventIdReused as error:
            logger.warning(
                "a redelivery has other bytes", extra={"agent": self.agent.user, "fault": str(error)}
            )
            evidence = UnreadableReceived(
                session=self._numbering.session,
                agent=self.agent.user,
                received_at=datetime.now(UTC),
                reason=f"redelivered with other bytes than those at position {error.position}",
            )
            stream = session_stream(self._numbering.session)
            await self._log.append(
                [NewEvent(Producer.new().key, stream, evidence.kind(), encode(evidence, event.payload))]
            )

    async def _write_facts(self) -> None:
        """Write what is still unwritten; if the log is away, it goes in with the next delivery."""
        if not self._unwritten:
            return
        try:
            await self._log.append(self._unwritten)
        except DatabaseError as error:
            logger.warning("a fact waits", extra={"agent": self.agent.user, "fault": str(error)})
        else:
            self._unwritten.clear()

    def _describe(self, item: Item) -> tuple[Event | None, bytes | None]:
        """The event for a fact about the session."""
        agent = self.agent.user
        match item:
            case Opened(acknowledged=ack, channels=channels, at=at):
                session = self._number(item.client_id).session
                self._now(Status.OPEN)
                return SessionOpened(
                    session=session, agent=agent, at=moment(at), ack=ack, channels=channels
                ), None
            case Resumed(at=at):
                session = self._number(item.client_id).session
                self._now(Status.OPEN)
                return SessionResumed(session=session, agent=agent, at=moment(at)), None
            case Lost(cause=cause, since=since, at=at):
                session = self._number(item.client_id).session
                self._now(Status.LOST, cause)
                alive = None if since is None else moment(since)
                return SessionLost(
                    session=session, agent=agent, at=moment(at), cause=cause, last_alive=alive
                ), None
            case PossibleGap(cause=cause, since=since, at=at):
                session = self._number(item.client_id).session
                alive = None if since is None else moment(since)
                return GapSuspected(
                    session=session, agent=agent, at=moment(at), cause=cause, last_alive=alive
                ), None
            case Refused(reason=reason, at=at):
                session = self._numbering.session
                self._now(Status.REFUSED, reason)
                return SessionRefused(session=session, agent=agent, at=moment(at), cause=reason), None
            case Evidence(body=body, reason=reason, at=at):
                session = self._numbering.session
                return UnreadableReceived(
                    session=session, agent=agent, received_at=moment(at), reason=reason
                ), body
            case Stopped(reason=reason):
                self._now(Status.STOPPED, reason)
                session = self._numbering.session
                return SessionClosed(session=session, agent=agent, at=datetime.now(UTC), reason=reason), None
            case MultipleClients() | Delivery():
                return None, None

    def _number(self, client_id: str) -> Numbering:
        """The numbering of the session that `client_id` names; a new one for a new session."""
        if self._numbering.client_id != client_id:
            self._numbering = Numbering(client_id)
        return self._numbering

    def _now(self, status: Status, reason: str = "") -> None:
        self.status, self.reason = status, reason
        logger.info("session", extra={"agent": self.agent.user, "status": status, "reason": reason})

    async def _begin(self) -> None:
        """After a session has opened: log in if told to, then ask what the world looks like."""
        try:
            if self.agent.login:
                await self._gws.start_session(self.agent.place)
            answer = await self._gws.calls()
        except GwsError as error:
            logger.warning("no snapshot", extra={"agent": self.agent.user, "fault": str(error)})
            return
        snapshot = CallsSnapshotTaken(
            session=self._numbering.session,
            agent=self.agent.user,
            at=datetime.now(UTC),
            http_status=answer.http_status,
        )
        stream = session_stream(self._numbering.session)
        self._unwritten.append(
            NewEvent(Producer.new().key, stream, snapshot.kind(), encode(snapshot, answer.body))
        )
        await self._write_facts()


def moment(seconds: float) -> datetime:
    """A time of day from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)
