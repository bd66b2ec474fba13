"""Between traffic and the log: telephony comes first, and what is not recorded is recorded as missing.

Whatever is to be recorded goes through `record`, which waits for the log, but not longer than `patience_s`.
Once the log has failed to keep up nothing waits for it any more, and what passes is only counted, until it
answers again. Then the gaps are written: `RecordingInterrupted` for the time, and an event for each session
that was passed on unrecorded. Held meanwhile are what was under way when the log went away, and a mark per
session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from service.errors import BadHttp, CalltrailError, EventIdReused
from service.events import (
    NotificationReceived,
    RecordingInterrupted,
    UnreadableReceived,
    decode,
    encode,
    session_stream,
)
from service.log import EventLog, NewEvent, Producer, Statement
from service.loops import Loop
from service.tap.sessions import Session

logger = logging.getLogger(__name__)

STREAM = "tap"
MOST_UNDER_WAY = 64 << 20  # bytes of events on their way into the log
MOST_GAPS = 20_000  # sessions whose gap is remembered; others are found by their rows
ASK_S = 0.5  # between two looks whether the log answers again

Policy = Literal["pass", "refuse"]


@dataclass
class Outage:
    """A time in which the log did not take what passed."""

    since: datetime
    cause: str
    deliveries: int = 0
    commands: int = 0


class Gate:
    """The way into the log. `gap_of` makes the event that tells of a session's gap, `saving` keeps it."""

    def __init__(
        self,
        log: EventLog,
        policy: Policy,
        patience_s: float,
        *,
        gap_of: Callable[[Session], NewEvent | None],
        saving: Callable[[Session], Statement],
    ) -> None:
        self.policy = policy
        self.outage: Outage | None = None
        self.loop = Loop("tap's way into the log", self._run)
        self.recorded = 0
        self.unrecorded = 0
        self._log = log
        self._patience_s = patience_s
        self._gap_of = gap_of
        self._saving = saving
        self._gaps: dict[bytes, Session] = {}
        self._under_way: set[asyncio.Task[CalltrailError | None]] = set()
        self._bytes = 0
        self._away = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self.outage is None

    def check(self) -> None:
        """Refuse what would have to be recorded, if that is the policy and the log is away.

        Raises:
            BadHttp: 503.

        """
        if self.outage is not None and self.policy == "refuse":
            raise BadHttp(503, "what passes here has to be recorded, and the log is away")

    async def record(self, events: Sequence[NewEvent], session: Session | None = None) -> bool:
        """Make `events` durable, with what is known of `session`; whether they are.

        They may still become so when the log was only slow; their ids make that harmless.
        """
        also = [] if session is None else [self._saving(session)]
        if self.outage is None:
            self._make_way(sum(len(event.payload) for event in events))
        if self.outage is None:
            error = await self._in_time(list(events), also)
            if error is None:
                self.recorded += len(events)
                return True
            self.interrupt(str(error))
        assert self.outage is not None
        self.unrecorded += len(events)
        if session is None:
            self.outage.commands += 1
        else:
            self.outage.deliveries += 1
            if len(self._gaps) < MOST_GAPS:
                self._gaps[session.client] = session
        return False

    def interrupt(self, cause: str) -> None:
        """The log does not keep up: from now on nothing waits for it."""
        if self.outage is None:
            self.outage = Outage(datetime.now(UTC), cause)
            self._away.set()
            done = "passed on unrecorded" if self.policy == "pass" else "refused"
            logger.error("the tap cannot record: traffic is %s", done, extra={"fault": cause})

    async def write_gaps(self) -> bool:
        """Write what is missing, as far as the log takes it; whether it took all."""
        while self.outage is not None:
            outage = self.outage
            interrupted = RecordingInterrupted(
                since=outage.since,
                until=datetime.now(UTC),
                cause=outage.cause,
                deliveries=outage.deliveries,
                commands=outage.commands,
            )
            told = NewEvent(Producer.new().key, STREAM, interrupted.kind(), encode(interrupted))
            if not await self._appended([told], []):
                return False
            self.outage = None
            logger.warning(
                "the tap records again",
                extra={"deliveries": outage.deliveries, "commands": outage.commands},
            )
        while self._gaps and self.outage is None:
            client, session = self._gaps.popitem()
            gap = self._gap_of(session)
            facts = [*session.facts] if gap is None else [*session.facts, gap]
            if not await self._appended(facts, [self._saving(session)]):
                self._gaps.setdefault(client, session)
                self.interrupt("the log went away again")
                return False
            session.facts = [fact for fact in session.facts if fact not in facts]
            session.doubt_since = None
        return not self._gaps

    # Inside

    async def _run(self, loop: Loop) -> None:
        while True:
            await self._away.wait()
            if self._under_way:
                await asyncio.wait(self._under_way)
            if await self.write_gaps():
                self._away.clear()
            else:
                await asyncio.sleep(ASK_S)
            loop.beat()

    def _make_way(self, size: int) -> None:
        if self._bytes + size > MOST_UNDER_WAY and self._under_way:
            self.interrupt("more waits for the log than may be held")

    async def _in_time(self, events: list[NewEvent], also: Sequence[Statement]) -> Exception | None:
        size = sum(len(event.payload) for event in events)
        appending = asyncio.create_task(self._append(events, also))
        self._under_way.add(appending)
        self._bytes += size
        appending.add_done_callback(lambda done: self._arrived(done, size))
        try:
            async with asyncio.timeout(self._patience_s):
                return await asyncio.shield(appending)
        except TimeoutError:
            return TimeoutError(f"the log has not answered for {self._patience_s} s")

    def _arrived(self, task: asyncio.Task[CalltrailError | None], size: int) -> None:
        self._under_way.discard(task)
        self._bytes -= size

    async def _appended(self, events: list[NewEvent], also: Sequence[Statement]) -> bool:
        error = await self._append(events, also)
        if error is not None:
            logger.warning("the log does not answer yet", extra={"fault": str(error)})
        return error is None

    async def _append(self, events: list[NewEvent], also: Sequence[Statement]) -> CalltrailError | None:
        while True:
            try:
                await self._log.append(events, also=also)
            except EventIdReused as reused:
                try:
                    events = await self._keep_first(events, reused)
                except CalltrailError as error:
                    return error
            except CalltrailError as error:
                return error
            else:
                return None

    async def _keep_first(self, events: list[NewEvent], reused: EventIdReused) -> list[NewEvent]:
        """Keep what came first under an id; other bytes under it are evidence, and an alarm.

        They are not other bytes if only who is behind the session has become known meanwhile.
        """
        other = next(event for event in events if event.event_id == reused.event_id)
        rest = [event for event in events if event is not other]
        [first] = await self._log.at([reused.position])
        decoded = decode(other.kind, other.payload)
        same = first.payload.partition(b"\n")[2] == other.payload.partition(b"\n")[2]
        if same or decoded is None or not isinstance(decoded[0], NotificationReceived):
            return rest
        logger.error("a redelivery has other bytes", extra={"fault": str(reused)})
        alarm = UnreadableReceived(
            session=decoded[0].session,
            agent=decoded[0].agent,
            received_at=datetime.now(UTC),
            reason=f"redelivered with other bytes than those at position {reused.position}",
        )
        stream = session_stream(alarm.session)
        return [*rest, NewEvent(Producer.new().key, stream, alarm.kind(), encode(alarm, decoded[1]))]
