"""One agent's recording: what CometD delivers, and every fact about the session, becomes an event.

A delivery is confirmed, and thereby acknowledged to the server, only when its events are durable. An event's
id is made of the session and of the count of events made durable in it before, so a redelivery (a lost
response, or an append whose outcome is unknown) gets the same ids again and the log recognises it.

While the log is away or slow, deliveries are left unconfirmed: the server keeps them and sends them again,
and the polls keep the session alive. What is held here meanwhile is one response and a bounded number of
facts. Facts wait in order and go in with whatever is appended next, or by themselves between two polls.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from service.cometd import (
    Client,
    Delivery,
    Failing,
    Item,
    Lost,
    MultipleClients,
    Opened,
    Refused,
    Resumed,
    State,
    Stopped,
)
from service.errors import BadInput, DatabaseError
from service.events import SessionClosed, SessionLost, SessionRefused
from service.log import EventLog, NewEvent, Producer, Statement
from service.loops import Loop
from service.recorder.access import Access, Pacing
from service.recorder.facts import fact_of, moment_of
from service.recorder.journal import Journal
from service.recorder.kept import Keeper, Kept, moment
from service.recorder.notifications import notifications
from service.recorder.numbering import Numbering
from service.recorder.ownership import Beat, Ownership
from service.recorder.snapshot import Snapshot
from service.recorder.status import Standing, Status

logger = logging.getLogger(__name__)

MOST_FACTS = 100
"""With so many facts waiting for the log nothing more is asked of the server."""
REST_S, LONGEST_REST_S = 60.0, 900.0  # before a session that the server has ended for good is tried anew


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
        self.loop = Loop(f"recorder {self.user}", self._run)
        self.journal = Journal(self.user, log, ownership)
        self._standing = Standing(self.user)
        self._access = access
        self._keeper = keeper
        self._kept: Kept | None = kept
        self._ownership = ownership
        self._pacing = pacing
        self._client: Client | None = None
        self._snapshot = Snapshot(access)
        self._numbering = Numbering("", Producer.new())
        self._open = False  # in the log a session is open
        self._row_in_doubt = kept.session is not None  # see `kept`
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
        certain = self._open and not self.journal.behind
        state = self._client.resume_state if certain and self._client is not None else None
        alive = None if state is None or state.since is None else moment(state.since)
        return Beat(self.user, self._session, alive, self.status, self.reason)

    @property
    def status(self) -> Status:
        return self._standing.seen(retrying=self._retrying)

    @property
    def reason(self) -> str:
        """Why the recording stands where it does, or is not going on."""
        return self._standing.reason(retrying=self._retrying)

    @property
    def _retrying(self) -> bool:
        return self._client is not None and self._client.state is State.RETRYING

    @property
    def _session(self) -> UUID:
        return self._numbering.session

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
            return self._access.connect(self._pacing, self._idle, resume=state, acked=self._client.acked)
        if kept is None or kept.session is None:
            return self._access.connect(self._pacing, self._idle)
        self._open = True
        producer = Producer(kept.session)
        secret = self._keeper.open(kept)
        if secret is not None:
            self._numbering = Numbering(secret.client_id, producer, kept.delivered)
            self._access.gws.restore(secret.csrf)
            resume = secret.resume_state(kept.alive_at, idle=kept.idle)
            await self._pacing.resumptions.turn()
            with suppress(BadInput):  # it was held over other channels
                return self._access.connect(self._pacing, self._idle, resume=resume, acked=kept.acked)
        self._numbering = Numbering("", producer, kept.delivered)
        await self._lose_kept(kept)
        return self._access.connect(self._pacing, self._idle)

    async def _lose_kept(self, kept: Kept) -> None:
        assert kept.session is not None
        cause = "what was kept of the session cannot be used: another key, another server or other channels"
        self._change(Status.LOST, cause)
        self._open = False
        self.journal.note(
            kept.session,
            SessionLost(
                session=kept.session,
                agent=self.user,
                at=datetime.now(UTC),
                cause=cause,
                last_alive=kept.alive_at,
            ),
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
            if item.confirmed:
                await self._take_snapshot()
            return
        self._note(item)
        if isinstance(item, Stopped) and item.kept and not self.journal.waiting:
            with suppress(DatabaseError):  # then a successor takes it for left in disorder
                await self._save(self._state(self._numbering.delivered))
        await self._write_facts()
        if isinstance(item, Opened):
            await self._take_snapshot()

    async def _idle(self) -> None:
        """Between two polls, the last of which has brought nothing: time for what waits."""
        if self.journal.waiting:
            await self._write_facts()
        await self._take_snapshot()

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
        state = self._state(delivered, delivery)
        try:
            await self.journal.append(self._session, events, state)
            if self._row_in_doubt:
                await self._save(state)
        except DatabaseError as error:
            self._row_in_doubt = True
            logger.warning(
                "a delivery is not durable and will come again",
                extra=self._told(error) | {"attempt": delivery.attempt},
            )
            return
        self._row_in_doubt = False
        numbering.delivered = delivered
        delivery.confirm()

    async def _write_facts(self) -> None:
        """Write what is still unwritten; if the log is away, it goes in with the next append, or later."""
        while self.journal.waiting:
            try:
                await self.journal.append(self._session, [], self._state(self._numbering.delivered))
            except DatabaseError as error:
                logger.warning("a fact waits", extra=self._told(error))
                if self.journal.waiting < MOST_FACTS or self._closing.is_set():
                    return
                await asyncio.sleep(1.0)

    async def _write_last_facts(self) -> None:
        """At the end: what cannot be written now is found again by the next process, as a loss."""
        while self.journal.waiting:
            await self._write_facts()
            if self.journal.waiting:
                await asyncio.sleep(0.1)

    async def _save(self, state: Sequence[Statement]) -> None:
        """Write the row without an event."""
        for statement in state:
            await self._ownership.execute(statement)

    def _note(self, item: Item) -> None:
        """Take up what is said of the session, and let the event that says it wait for the next append."""
        match item:
            case Opened(client_id=client_id, advice=advice):
                self._number(client_id)
                self._opened()
                self._snapshot.want()
                if advice.max_interval is not None:
                    self.journal.log.session_lives(advice.max_interval)
            case Resumed():
                self._opened()
            case Lost(cause=cause):
                self._change(Status.LOST, cause)
                self._open = False
                self._snapshot.drop()
            case Refused(reason=reason, at=at):
                self._refused(reason, moment(at))
            case Failing(cause=cause):
                self._standing.failing(self._session, cause)
            case MultipleClients():
                self._standing.crowded(self._session)
            case Stopped():
                self._snapshot.drop()
                self._stopped(item)
        if (told := fact_of(item, self._session, self.user)) is not None:
            self.journal.note(self._session, *told)

    def _opened(self) -> None:
        self._change(Status.OPEN)
        self._open = True
        self._refusal = ""
        self._rests = 0

    def _refused(self, reason: str, at: datetime) -> None:
        """Report a refusal once, however often it is repeated."""
        if not self._open:
            self._change(Status.REFUSED, reason)
        if reason != self._refusal:
            self._refusal = reason
            refused = SessionRefused(session=self._session, agent=self.user, at=at, cause=reason)
            self.journal.note(self._session, refused)

    def _stopped(self, item: Stopped) -> None:
        was_open = self._open
        self._change(Status.STOPPED, item.reason)
        if item.kept and self._keep_session:
            return  # a successor goes on with it
        self._open = False
        session, agent, now = self._session, self.user, datetime.now(UTC)
        if was_open and item.kept:  # to be closed, and it did not answer: what it still holds is missing
            since = moment_of(item.since)
            lost = SessionLost(session=session, agent=agent, at=now, cause=item.reason, last_alive=since)
            self.journal.note(session, lost)
        elif was_open:
            at = moment_of(item.since) or now  # what came to the server after that, it did not send any more
            self.journal.note(session, SessionClosed(session=session, agent=agent, at=at, reason=item.reason))
        elif not self._closing.is_set():
            self._refused(item.reason, now)

    def _change(self, status: Status, cause: str = "") -> None:
        self._standing.change(status, self._session, cause, expected=self._closing.is_set())

    def _told(self, error: Exception) -> dict[str, object]:
        """What a log line about an error carries."""
        return self._standing.told(self._session, error)

    def _number(self, client_id: str) -> Numbering:
        """The numbering of the session that `client_id` names; a new one for a new session."""
        if self._numbering.client_id != client_id:
            self._numbering = Numbering(client_id, Producer.new())
        return self._numbering

    def _state(self, delivered: int, delivery: Delivery | None = None) -> Sequence[Statement]:
        """The statement that keeps what the append is about to make true."""
        if not self._open:
            return [self._keeper.nothing(self.status, self.reason)]
        client = self._client
        if client is None:
            return []
        state = client.resume_state if delivery is None else client.resume_state_after(delivery)
        if state is None:
            return []  # it is lost already, and what says so comes next
        acked = client.acked if delivery is None or delivery.batch is None else delivery.batch
        statement = self._keeper.session(
            state,
            self._access.gws.csrf,
            session=self._session,
            delivered=delivered,
            acked=acked,
            status=self.status,
            reason=self.reason,
        )
        return [statement]

    async def _take_snapshot(self) -> None:
        """Ask for the agent's calls, if it is time to: polls wait meanwhile, no longer than they can."""
        if self._closing.is_set():
            return
        taken = await self._snapshot.take(self._session, within_s=self.journal.log.patience)
        if taken is not None:
            self.journal.note(self._session, *taken)
            await self._write_facts()
