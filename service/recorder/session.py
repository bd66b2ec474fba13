"""One agent's recording: what CometD delivers, and every fact about the session, becomes an event.

A delivery is confirmed, and thereby acknowledged to the server, only when its events are durable. An event's
id is made of the session and of the count of events made durable in it before, so a redelivery (a lost
response, or an append whose outcome is unknown) gets the same ids again and the log recognises it.

While the log is away or slow, deliveries are left unconfirmed: the server keeps them and sends them again,
and the polls keep the session alive. What is held here meanwhile is one response and a bounded number of
facts. Facts wait in order and go in with whatever is appended next.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import cast

from service.cometd import (
    Client,
    Delivery,
    Evidence,
    Failing,
    Item,
    Lost,
    MultipleClients,
    Opened,
    PossibleGap,
    Refused,
    Resumed,
    State,
    Stopped,
)
from service.errors import (
    BadInput,
    DatabaseError,
    DatabaseUnavailable,
    EventIdReused,
    GwsError,
)
from service.events import (
    CallsSnapshotTaken,
    Event,
    GapSuspected,
    SessionClosed,
    SessionLost,
    SessionOpened,
    SessionRefused,
    SessionResumed,
    UnreadableReceived,
    encode,
    session_stream,
)
from service.log import EventLog, NewEvent, Producer, Statement
from service.loops import Loop
from service.recorder.access import Access, Pacing
from service.recorder.appending import PatientLog
from service.recorder.kept import Keeper, Kept, moment
from service.recorder.notifications import PART_BYTES, in_parts, notifications
from service.recorder.numbering import Numbering
from service.recorder.ownership import Beat, Ownership

logger = logging.getLogger(__name__)

MOST_FACTS = 100
"""With so many facts waiting for the log nothing more is asked of the server."""
REST_S, LONGEST_REST_S = 60.0, 900.0  # before a session that the server has ended for good is tried anew


class Status(StrEnum):
    """Where an agent's recording stands, for people."""

    STARTING = "starting"
    OPEN = "open"
    RETRYING = "retrying"
    LOST = "lost"
    REFUSED = "refused"
    STOPPED = "stopped"


class AgentRecorder:
    """Records one agent, going on with the session in `kept` if there is one.

    Nothing is appended unless `ownership` is held.
    """

    def __init__(
        self,
        access: Access,
        log: EventLog,
        *,
        keeper: Keeper,
        kept: Kept,
        ownership: Ownership,
        pacing: Pacing,
    ) -> None:
        self.user = access.agent.user
        self.status = Status.STARTING
        self._cause = ""  # of the status
        self._fault = ""  # why requests fail, if they do since the status changed
        self.loop = Loop(f"recorder {self.user}", self._run)
        self._access = access
        self._log = PatientLog(log)
        self._keeper = keeper
        self._kept: Kept | None = kept
        self._ownership = ownership
        self._pacing = pacing
        self._client: Client | None = None
        self._numbering = Numbering("", Producer.new())
        self._open = False  # in the log a session is open
        self._unwritten: list[NewEvent] = []
        self._refusal = ""
        self._rests = 0
        self._closing = asyncio.Event()
        self._keep_session = False

    def close(self, *, keep_session: bool = False) -> None:
        """Begin to end in good order; the loop ends by itself when it is done."""
        self._keep_session = keep_session
        self._closing.set()
        if self._client is not None:
            self._client.close(keep_session=keep_session)

    def beat(self) -> Beat:
        """What to write down now and then. With facts waiting, how far the record reaches is not certain."""
        certain = self._open and not self._unwritten and not self._log.busy
        state = self._client.resume_state if certain and self._client is not None else None
        alive = None if state is None or state.since is None else moment(state.since)
        return Beat(self.user, self._numbering.session, alive, self.current_status, self.reason)

    @property
    def current_status(self) -> Status:
        retrying = self._client is not None and self._client.state is State.RETRYING
        return Status.RETRYING if self.status is Status.OPEN and retrying else self.status

    @property
    def reason(self) -> str:
        """Why the recording stands where it does, or is not going on."""
        return self._cause if self.current_status is Status.OPEN else self._fault or self._cause

    # The loop

    async def _run(self, loop: Loop) -> None:
        while not self._closing.is_set():
            self._client = await self._make_client()
            if self._closing.is_set():
                self._client.close(keep_session=self._keep_session)
            deliveries = cast("AsyncGenerator[Item, None]", self._client.deliveries())
            async with aclosing(deliveries) as items:
                async for item in items:
                    loop.beat()
                    await self._take(item)
            if not self._closing.is_set():
                await self._rest()
        await self._write_last_facts()

    async def _make_client(self) -> Client:
        """Go on with what an earlier process, or an earlier client of ours, has left; else begin."""
        kept, self._kept = self._kept, None
        if self._client is not None and (state := self._client.resume_state) is not None and self._open:
            return self._access.connect(self._pacing, resume=state, acked=self._client.acked)
        if kept is None or kept.session is None:
            return self._access.connect(self._pacing)
        self._open = True
        producer = Producer(kept.session)
        secret = self._keeper.open(kept)
        if secret is not None:
            self._numbering = Numbering(secret.client_id, producer, kept.delivered)
            self._access.gws.restore(secret.csrf)
            resume = secret.resume_state(kept.alive_at, idle=kept.idle)
            await self._pacing.resumptions.turn()
            with suppress(BadInput):  # it was held over other channels
                return self._access.connect(self._pacing, resume=resume, acked=kept.acked)
        self._numbering = Numbering("", producer, kept.delivered)
        await self._lose_kept(kept)
        return self._access.connect(self._pacing)

    async def _lose_kept(self, kept: Kept) -> None:
        assert kept.session is not None
        cause = "what was kept of the session cannot be used: another key, another server or other channels"
        self._now(Status.LOST, cause)
        self._open = False
        self._note(
            SessionLost(
                session=kept.session,
                agent=self.user,
                at=datetime.now(UTC),
                cause=cause,
                last_alive=kept.alive_at,
            )
        )
        await self._write_facts()

    async def _rest(self) -> None:
        """The server has ended it for good: start afresh after a long pause, which grows."""
        pause = min(LONGEST_REST_S, REST_S * 2.0**self._rests) * random.uniform(0.5, 1.0)  # noqa: S311 jitter
        self._rests += 1
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._closing.wait()

    async def _take(self, item: Item) -> None:
        if isinstance(item, Delivery):
            await self._deliver(item)
            return
        for event, body in self._describe(item):
            self._note(event, body)
        if isinstance(item, Stopped) and item.kept and not self._unwritten:
            await self._save_as_left()
        await self._write_facts()
        if isinstance(item, Opened):
            await self._begin()

    # Deliveries

    async def _deliver(self, delivery: Delivery) -> None:
        """Make a delivery durable, or leave it unconfirmed: then it comes again."""
        numbering = self._number(delivery.client_id)
        events: list[NewEvent] = []
        for message in delivery.messages:
            count = numbering.delivered + len(events)
            events += notifications(
                message, numbering.events, count, session=numbering.session, count=count, agent=self.user
            )
        delivered = numbering.delivered + len(events)
        try:
            await self._append(events, self._state(delivered, delivery))
        except DatabaseError as error:
            logger.warning(
                "a delivery is not durable and will come again", extra=self._extra(error, delivery.attempt)
            )
            return
        numbering.delivered = delivered
        delivery.confirm()

    # Facts

    def _note(self, event: Event, body: bytes | None = None) -> None:
        """Let an event about the session wait for the next append."""
        stream = session_stream(self._numbering.session)
        if body is not None and len(body) > PART_BYTES:
            self._note_in_parts(event, body)
            return
        self._unwritten.append(NewEvent(Producer.new().key, stream, event.kind(), encode(event, body)))

    def _note_in_parts(self, event: Event, body: bytes) -> None:
        parts = in_parts(body)
        said = event.reason if isinstance(event, UnreadableReceived) else event.kind()
        for number, part in enumerate(parts, start=1):
            piece = UnreadableReceived(
                session=self._numbering.session,
                agent=self.user,
                received_at=datetime.now(UTC),
                reason=f"{said} (part {number} of {len(parts)})",
            )
            self._note(piece, part)

    async def _write_facts(self) -> None:
        """Write what is still unwritten; if the log is away, it goes in with the next append."""
        while self._unwritten:
            try:
                await self._append([], self._state(self._numbering.delivered))
            except DatabaseError as error:
                logger.warning("a fact waits", extra=self._extra(error))
                if len(self._unwritten) < MOST_FACTS or self._closing.is_set():
                    return
                await asyncio.sleep(1.0)

    async def _write_last_facts(self) -> None:
        """At the end: what cannot be written now is found again by the next process, as a loss."""
        while self._unwritten:
            await self._write_facts()
            if self._unwritten:
                await asyncio.sleep(0.1)

    async def _save_as_left(self) -> None:
        """Note that the session is left in good order, for a successor."""
        for statement in self._state(self._numbering.delivered):
            with suppress(DatabaseError):
                await self._ownership.execute(statement)

    def _describe(self, item: Item) -> list[tuple[Event, bytes | None]]:
        """The events for a fact about the session."""
        agent, session = self.user, self._numbering.session
        match item:
            case Opened(acknowledged=ack, channels=channels, at=at, advice=advice):
                session = self._number(item.client_id).session
                self._opened(advice.max_interval)
                opened = SessionOpened(
                    session=session, agent=agent, at=moment(at), ack=ack, channels=channels
                )
                return [(opened, None)]
            case Resumed(at=at):
                self._opened(None)
                return [(SessionResumed(session=session, agent=agent, at=moment(at)), None)]
            case Lost(cause=cause, since=since, at=at):
                self._now(Status.LOST, cause)
                self._open = False
                lost = SessionLost(
                    session=session, agent=agent, at=moment(at), cause=cause, last_alive=moment_of(since)
                )
                return [(lost, None)]
            case PossibleGap(cause=cause, since=since, at=at):
                gap = GapSuspected(
                    session=session, agent=agent, at=moment(at), cause=cause, last_alive=moment_of(since)
                )
                return [(gap, None)]
            case Refused(reason=reason, at=at):
                return self._refused(reason, moment(at))
            case Evidence(body=body, reason=reason, at=at):
                unreadable = UnreadableReceived(
                    session=session, agent=agent, received_at=moment(at), reason=reason
                )
                return [(unreadable, body)]
            case Stopped():
                return self._stopped(item)
            case Failing() | MultipleClients():
                self._warned(item)
                return []
            case Delivery():
                return []

    def _warned(self, item: Failing | MultipleClients) -> None:
        if isinstance(item, Failing):
            self._fault = item.cause
            logger.warning("a request failed and is tried again", extra=self._extra(item.cause))
        else:
            self._cause = "another client shares this session's cookies and slows both down"
            logger.warning("the session is crowded", extra=self._extra(self._cause))

    def _opened(self, max_interval: float | None) -> None:
        self._now(Status.OPEN)
        self._open = True
        self._refusal = ""
        self._rests = 0
        if max_interval is not None:
            self._log.session_lives(max_interval)

    def _refused(self, reason: str, at: datetime) -> list[tuple[Event, bytes | None]]:
        """Report a refusal once, however often it is repeated."""
        if not self._open:
            self._now(Status.REFUSED, reason)
        if reason == self._refusal:
            return []
        self._refusal = reason
        refused = SessionRefused(session=self._numbering.session, agent=self.user, at=at, cause=reason)
        return [(refused, None)]

    def _stopped(self, item: Stopped) -> list[tuple[Event, bytes | None]]:
        was_open = self._open
        self._now(Status.STOPPED, item.reason)
        if item.kept and self._keep_session:
            return []  # a successor goes on with it
        self._open = False
        now = datetime.now(UTC)
        if was_open:
            closed = SessionClosed(
                session=self._numbering.session, agent=self.user, at=now, reason=item.reason
            )
            return [(closed, None)]
        return [] if self._closing.is_set() else self._refused(item.reason, now)

    def _now(self, status: Status, reason: str = "") -> None:
        self.status, self._cause, self._fault = status, reason, ""
        extra = {
            "agent": self.user,
            "session": str(self._numbering.session),
            "status": status,
            "reason": reason,
        }
        expected = status is Status.OPEN or self._closing.is_set()
        logger.log(logging.INFO if expected else logging.WARNING, "session", extra=extra)

    def _number(self, client_id: str) -> Numbering:
        """The numbering of the session that `client_id` names; a new one for a new session."""
        if self._numbering.client_id != client_id:
            self._numbering = Numbering(client_id, Producer.new())
        return self._numbering

    # Appending

    def _state(self, delivered: int, delivery: Delivery | None = None) -> Sequence[Statement]:
        """The statement that keeps what the append is about to make true."""
        if not self._open:
            return [self._keeper.nothing(self.status, self.reason)]
        client = self._client
        state = client.resume_state if client is not None else None
        if client is None or state is None:
            return []  # it is lost already, and what says so comes next
        acked, since = client.acked, state.since
        if delivery is not None and delivery.batch is not None:
            acked, since = delivery.batch, delivery.at
        elif delivery is not None and not delivery.acknowledged:
            since = delivery.at
        statement = self._keeper.session(
            state,
            self._access.gws.csrf,
            session=self._numbering.session,
            delivered=delivered,
            acked=acked,
            since=since,
            status=self.status,
            reason=self.reason,
        )
        return [statement]

    async def _append(self, events: list[NewEvent], also: Sequence[Statement]) -> None:
        """Append the facts that wait, and `events`.

        Raises:
            DatabaseError: it is not known to be durable; to be tried again with the same events.

        """
        if not self._ownership.held:
            raise DatabaseUnavailable("another process may have taken over the agent")
        while True:
            try:
                await self._log.append([*self._unwritten, *events], also)
            except EventIdReused as error:
                self._keep_first(events, error)
            else:
                self._unwritten.clear()
                return

    def _keep_first(self, events: list[NewEvent], error: EventIdReused) -> None:
        """Keep the bytes that came first; the other ones are evidence, and an alarm."""
        other = next((event for event in events if event.event_id == error.event_id), None)
        if other is None:
            raise error
        events.remove(other)
        logger.error("a redelivery has other bytes", extra=self._extra(error))
        alarm = UnreadableReceived(
            session=self._numbering.session,
            agent=self.user,
            received_at=datetime.now(UTC),
            reason=f"redelivered with other bytes than those at position {error.position}",
        )
        self._note(alarm, other.payload)

    def _extra(self, error: Exception | str, attempt: int = 1) -> dict[str, object]:
        session = str(self._numbering.session)
        return {"agent": self.user, "session": session, "attempt": attempt, "fault": str(error)}

    async def _begin(self) -> None:
        """After a session has opened: log in if told to, then ask what the world looks like."""
        agent, gws = self._access.agent, self._access.gws
        try:
            if agent.login:
                await gws.start_session(agent.place)
            answer = await gws.calls()
        except GwsError as error:
            logger.warning("no snapshot", extra=self._extra(error))
            return
        snapshot = CallsSnapshotTaken(
            session=self._numbering.session,
            agent=agent.user,
            at=datetime.now(UTC),
            http_status=answer.http_status,
        )
        self._note(snapshot, answer.body)
        await self._write_facts()


def moment_of(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)
