"""What CometD delivers through the tap, and each session's life, as events: durable before it is passed on.

One answer of CometD, whether the body of a long poll or a WebSocket message, is one append: the facts about
the session that show in it (begun, lost, closed, a gap) and its events, each element's bytes as they came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from service.cometd import Message
from service.errors import DatabaseError
from service.events import (
    AgentIdentified,
    Event,
    GapSuspected,
    SessionClosed,
    SessionLost,
    SessionOpened,
    SessionResumed,
    UnreadableReceived,
    encode,
    session_stream,
)
from service.gws import dialect
from service.log import EventLog, NewEvent, Producer
from service.loops import Loop
from service.postgres import Database
from service.recorder.heap import Heap
from service.recorder.notifications import in_parts, notifications
from service.tap.gate import Gate, Policy
from service.tap.reading import batch_of, client_of
from service.tap.sessions import Session, Sessions
from service.tap.who import Visitor

logger = logging.getLogger(__name__)

BEAT_S = 1.0
MAX_INTERVAL_MS = 10_000  # CometD's default, where the advice does not say
LOST_COUNT = (1 << 32) - 1
"""The count of a session's end among its events, so that two who find it abandoned write it once."""

CONNECT, HANDSHAKE = "/meta/connect", "/meta/handshake"
SUBSCRIBE, DISCONNECT = "/meta/subscribe", "/meta/disconnect"
CALLS = dialect.MY_CALLS.removeprefix("/api")
COVERING = frozenset({CALLS, "/v2/me/*", "/v2/me/**", "/v2/**", "/**"})
"""Subscriptions that bring what happens to the agent's calls."""


class Recording:
    """Turns what CometD says into events. `loop` looks after the sessions that nobody speaks for any more."""

    def __init__(self, database: Database, log: EventLog, policy: Policy, patience_s: float) -> None:
        self.sessions = Sessions(database)
        self.gate = Gate(log, policy, patience_s, gap_of=self._gap, saving=self.sessions.saving)
        self.loop = Loop("tap's sessions", self._run)
        self.heap = Heap(lambda: len(self.sessions))
        self.hasty = False
        """Another process may see the next request: keep every session as soon as it changes."""

    async def take(
        self, asked: Sequence[Message], answered: Sequence[Message], visitor: Visitor, asked_at: datetime
    ) -> None:
        """Record CometD's answer to what was passed on at `asked_at`; when this is done it may be passed on.

        Raises:
            BadHttp: it may not, by the policy.

        """
        try:
            session = await self._session(asked, answered, visitor)
        except DatabaseError as error:
            self.gate.interrupt(str(error))
            session = None
        events = [message for message in answered if message.is_event]
        if session is None:
            if not events:
                return
            now = datetime.now(UTC)
            session = Session(b"", Producer.new(), visitor.agent, ack=False, alive_at=now, over=True)
        self._identify(session, visitor)
        poll = next((one for one in asked if one.channel == CONNECT), None)
        reply = next((one for one in answered if one.channel == CONNECT and "successful" in one.fields), None)
        await self._tell_before(session, poll, answered)
        new = self._number(session, poll, reply, answered, events)
        alive_at = session.alive_at
        if reply is not None and reply.successful:
            self._answered(session, reply, asked_at)
        self._tell_after(session, answered)
        if not await self._record(session, new):
            session.alive_at = alive_at
            if self.gate.policy == "pass" or not session.ack:
                session.doubted(alive_at, "the log was away, and the tap passed on what it could not record")
            self.gate.check()

    async def unreadable(self, body: bytes, reason: str, asked: Sequence[Message], visitor: Visitor) -> None:
        """Keep an answer that cannot be read as it came."""
        named = client_of(asked)
        session = None if named is None else self.sessions.known(named)
        key = Producer.new().key if session is None else session.key
        new = []
        parts = in_parts(body)
        for number, part in enumerate(parts, start=1):
            event = UnreadableReceived(
                session=key,
                agent=visitor.agent,
                received_at=datetime.now(UTC),
                reason=reason if len(parts) == 1 else f"{reason} (part {number} of {len(parts)})",
            )
            new.append(told(event, part))
        if not await self.gate.record(new, session):
            if session is not None:
                session.doubted(session.alive_at, "an answer that cannot be read was passed on unrecorded")
            self.gate.check()

    def failed(self, asked: Sequence[Message]) -> None:
        """A poll got no answer: without acknowledgement something may have been lost with it."""
        named = client_of(asked)
        session = None if named is None else self.sessions.known(named)
        if session is not None and not session.ack and any(one.channel == CONNECT for one in asked):
            session.doubted(session.alive_at, "a poll failed on a server that does not redeliver")

    def begun(self, asked: Sequence[Message]) -> None:
        """Polls among what was asked are held from now on."""
        self._hold(asked, 1)

    def over(self, asked: Sequence[Message]) -> None:
        """They are held no longer."""
        self._hold(asked, -1)

    def _hold(self, asked: Sequence[Message], more: int) -> None:
        for one in asked:
            client_id = one.fields.get("clientId")
            session = self.sessions.known(client_id) if type(client_id) is str else None
            if session is not None and one.channel == CONNECT:
                session.polls = max(0, session.polls + more)

    async def finish(self) -> None:
        """Write down all that is certain, for the process that comes next."""
        await self.gate.write_gaps()
        await self.sessions.beat()

    # Sessions

    async def _session(
        self, asked: Sequence[Message], answered: Sequence[Message], visitor: Visitor
    ) -> Session | None:
        """The session that an answer belongs to; None where there is none."""
        for reply in answered:
            client_id = reply.fields.get("clientId")
            if reply.channel == HANDSHAKE and reply.successful and type(client_id) is str:
                ack = reply.ext.get("ack")
                return self.sessions.begin(client_id, visitor.agent, ack=ack is True or type(ack) is dict)
        named = client_of(asked) or client_of(answered)
        if named is None:
            return None
        if (session := self.sessions.known(named)) is not None:
            return session
        if not self.gate.is_open:
            return None
        session = await self.sessions.take(named)
        if session is not None:
            return session
        connects = any(one.channel == CONNECT and one.successful for one in answered)
        if not connects and not any(one.is_event for one in answered):
            return None
        ack = any(type(one.ext.get("ack")) is int for one in asked)
        session = self.sessions.begin(named, visitor.agent, ack=ack)
        session.opened_at = session.alive_at  # its handshake was not seen: what was before is not known
        return session

    def _identify(self, session: Session, visitor: Visitor) -> None:
        if session.agent is None and visitor.agent is not None:
            session.agent = visitor.agent
            session.note(
                told(AgentIdentified(session=session.key, agent=visitor.agent, at=datetime.now(UTC)))
            )

    def _answered(self, session: Session, reply: Message, asked_at: datetime) -> None:
        """A poll was answered well: up to when it was asked nothing is missing but what is doubted."""
        if session.doubt_since is not None and self.gate.is_open:
            if (gap := self._gap(session)) is not None:
                session.note(gap)
            session.doubt_since = None
        session.answered(asked_at)
        advice = reply.advice or {}
        held_ms = advice.get("timeout")
        if type(held_ms) is int:
            others = (advice.get("interval", 0), advice.get("maxInterval", MAX_INTERVAL_MS))
            session.patience_s = (held_ms + sum(ms for ms in others if type(ms) is int)) / 1000

    def _gap(self, session: Session) -> NewEvent | None:
        """What tells of a session's gap."""
        if session.agent is None or session.over or session.doubt_since is None:
            return None
        gap = GapSuspected(
            session=session.key,
            agent=session.agent,
            at=datetime.now(UTC),
            cause=session.doubt,
            last_alive=session.doubt_since,
        )
        return told(gap)

    async def _tell_before(self, session: Session, poll: Message | None, answered: Sequence[Message]) -> None:
        """The facts that come before an answer's events."""
        now = datetime.now(UTC)
        for reply in answered:
            if reply.channel == SUBSCRIBE and reply.successful:
                granted = reply.fields.get("subscription")
                names = granted if isinstance(granted, list) else [granted]
                session.channels += [n for n in names if type(n) is str and n not in session.channels]
                if session.opened_at is None and COVERING & set(session.channels):
                    session.opened_at = now
        if session.opened_at is not None and not session.opened and session.agent is not None:
            session.opened = True
            opened = SessionOpened(
                session=session.key,
                agent=session.agent,
                at=session.opened_at,
                ack=session.ack,
                channels=tuple(session.channels),
            )
            session.note(told(opened))
            if not any(one.polls for one in self.sessions.others(session)):
                await self._tell_since(session, session.opened_at)
        if session.resumed and poll is not None:
            session.resumed = False
            ack = poll.ext.get("ack")
            if not (session.ack and type(ack) is int and ack <= session.batch):
                session.doubted(session.alive_at, "what its last process passed on is not all certain")
            elif session.agent is not None and session.opened:
                session.note(told(SessionResumed(session=session.key, agent=session.agent, at=now)))

    async def _tell_since(self, session: Session, at: datetime) -> None:
        """Tell what lies between an agent's session and the one before, if that just fell silent.

        Its end is noticed much later, when its client has not polled for long: a page that was loaded anew.
        """
        try:
            since = await self.sessions.last_alive(session)
        except DatabaseError as error:
            self.gate.interrupt(str(error))
            return
        if since is not None and since < at and session.agent is not None:
            cause = "another session of the agent had fallen silent before this one began"
            gap = GapSuspected(session=session.key, agent=session.agent, at=at, cause=cause, last_alive=since)
            session.note(told(gap))

    def _tell_after(self, session: Session, answered: Sequence[Message]) -> None:
        """The facts that come after an answer's events: how the session ended."""
        for reply in answered:
            if reply.channel == DISCONNECT and reply.successful:
                if "id" in reply.fields:
                    self._end(session, closed="the application has ended it")
                else:
                    self._end(session, lost="the server has ended it")
            elif reply.channel == CONNECT and not reply.successful and "successful" in reply.fields:
                code, text = reply.error
                reconnect = (reply.advice or {}).get("reconnect")
                if code == 402 or reconnect in {"handshake", "none"} or "unknown client" in text.lower():
                    self._end(session, lost=f"{code or ''} {text}".strip() or f"advice {reconnect}")

    def _end(self, session: Session, *, lost: str = "", closed: str = "") -> None:
        if session.over:
            return
        self.sessions.drop(session)
        if session.agent is None or not session.opened:
            return
        now = datetime.now(UTC)
        since = session.doubt_since or session.alive_at
        event: Event = SessionLost(
            session=session.key, agent=session.agent, at=now, cause=lost or closed, last_alive=since
        )
        others = [other for other in self.sessions.others(session) if other.polls]
        if closed and session.doubt_since is None:
            if not session.polls and not others:
                cause = (
                    "it was ended while it did not poll: what waited in the server for a poll went with it"
                )
                gap = GapSuspected(
                    session=session.key, agent=session.agent, at=now, cause=cause, last_alive=since
                )
                session.note(told(gap))
            event = SessionClosed(session=session.key, agent=session.agent, at=now, reason=closed)
        stream = session_stream(session.key)
        session.note(NewEvent(session.numbers.event_id(LOST_COUNT), stream, event.kind(), encode(event)))
        for other in others[:1]:
            session.note(told(SessionResumed(session=other.key, agent=session.agent, at=now)))

    # Events

    def _number(
        self,
        session: Session,
        poll: Message | None,
        reply: Message | None,
        answered: Sequence[Message],
        messages: Sequence[Message],
    ) -> list[NewEvent]:
        """The events of an answer. With acknowledgement they have the same ids when they come again."""
        batch = batch_of(reply) if reply is not None else None
        recognisable = session.ack and poll is not None
        for one in answered:
            if one.channel == HANDSHAKE and session.ack:
                recognisable, batch = True, batch_of(one)
        ids, number = Producer.new(), 0
        count = session.delivered
        if recognisable:
            ack = poll.ext.get("ack") if poll is not None else None
            ids = session.numbers
            number = count = session.first_after(ack if type(ack) is int else 0)
        new: list[NewEvent] = []
        for message in messages:
            at = len(new)
            new += notifications(
                message, ids, number + at, session=session.key, count=count + at, agent=session.agent
            )
        if recognisable and batch is not None:
            session.delivers(batch, count + len(new))
        elif not recognisable:
            session.delivered = max(session.delivered, count + len(new))
        return new

    async def _record(self, session: Session, new: list[NewEvent]) -> bool:
        """Append what is to be told of a session; whether it is durable."""
        facts = list(session.facts)
        if facts or new:
            session.on_its_way += 1
            try:
                durable = await self.gate.record([*facts, *new], session)
            finally:
                session.on_its_way -= 1
            if durable:
                session.facts = [fact for fact in session.facts if fact not in facts]
            return durable
        if session.stored and (session.over or self.hasty) and self.gate.is_open:
            try:
                await self.sessions.save(session)
            except DatabaseError as error:
                self.gate.interrupt(str(error))
        return True

    # Those that nobody speaks for

    async def _run(self, loop: Loop) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if self.gate.is_open:
                await self.sessions.beat()
                for session in self.sessions.silent(datetime.now(UTC)):
                    self._end(session, lost="its client has stopped polling")
                    await self._record(session, [])
                for session in await self.sessions.abandoned():
                    self._end(session, lost="its client and its process have gone")
                    await self._record(session, [])
            loop.beat()


def told(event: Any, body: bytes | None = None) -> NewEvent:
    """A fact about a session, to be appended."""
    return NewEvent(Producer.new().key, session_stream(event.session), event.kind(), encode(event, body))
