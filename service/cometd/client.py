"""A client for a consumer that must not lose anything.

    client = Client(LongPolling(http, url), ["/v2/me/calls"])
    async for item in client.deliveries():
        if isinstance(item, Delivery):
            await append(item.messages)     # durable when this returns
            item.confirm()
        else:
            await note(item)                # Opened, Lost, PossibleGap, …

The contract:

- Nothing is sent while the consumer holds an item. The next connect, and with it the acknowledgement, leaves
  when the consumer asks for the next item. There is no queue in between.
- A delivery counts as durable only if it was confirmed. One that was not comes again, after half a second
  to a second: from the server if it keeps a copy (`batch` is not None), else the same object. So a consumer
  whose database is away must not sit on a delivery, but leave it unconfirmed and ask on: the polls keep the
  session alive meanwhile. While it does sit on one, the server's clock runs (`Advice.max_interval`, often
  10 s).
- A consumer that goes away in the middle (an exception, a cancellation) has confirmed what it confirmed,
  and no more. A later process goes on from `resume_state`.
- No task runs besides the consumer's own, but for the one request under way.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any

from service.cometd.actions import Action, Finish, Listen, Pause, Purpose, Send, State
from service.cometd.facts import Delivery, Item, ResumeState
from service.cometd.framing import split
from service.cometd.patience import Timing
from service.cometd.replies import FORBIDDEN, UNAUTHENTICATED
from service.cometd.session import Session
from service.cometd.transport import Transport
from service.errors import CalltrailError, CometdError, TransportFailed

_OLDER_POLL_TIMEOUT = 1.0
"""Seconds to wait for an interrupted poll, once the one that supersedes it has been answered."""


class Client:
    """Drives one session over one transport.

    `channels`, `timing`, `rng`, `resume`, `acked`: see `Session`.
    `wall`: the clock for `at` and `since`, seconds since 1970.
    `prepare`: awaited before each handshake, to renew credentials or to fetch cookies and a CSRF token. If
    it raises a `CalltrailError`, the handshake counts as failed; raise `TransportFailed` with its `status`
    for a 401 or 403. It is also awaited when another request is answered 401 or 403, which is then repeated
    once: a log-in that is over need not be the end of the session.
    `idle`: awaited between two requests when the last one has brought no item. The session waits meanwhile,
    as it does while the consumer holds an item.
    """

    __slots__ = ("_close", "_closing", "_idle", "_older", "_prepare", "_session", "_transport", "_wall")

    def __init__(
        self,
        transport: Transport,
        channels: Sequence[str],
        *,
        timing: Timing | None = None,
        rng: random.Random | None = None,
        prepare: Callable[[], Awaitable[None]] | None = None,
        idle: Callable[[], Awaitable[None]] | None = None,
        resume: ResumeState | None = None,
        acked: int = 0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self._transport = transport
        self._prepare = prepare
        self._idle = idle
        self._session = Session(
            channels,
            connection_type=transport.connection_type,
            streaming=transport.streaming,
            timing=timing,
            rng=rng,
            resume=resume,
            acked=acked,
        )
        if resume is not None:
            transport.cookies.load(resume.cookies)
        self._close: bool | None = None
        self._closing: asyncio.Future[None] | None = None
        self._older: asyncio.Task[bytes] | None = None

    def __repr__(self) -> str:
        return f"Client({self._session.state})"

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._session.state

    @property
    def acked(self) -> int:
        """The batch that the next connect acknowledges."""
        return self._session.acked

    @property
    def resume_state(self) -> ResumeState | None:
        """What a later process needs, with `acked`, to go on; None while there is no session."""
        return self._session.resume_state(self._transport.cookies.dump())

    def resume_state_after(self, delivery: Delivery) -> ResumeState | None:
        """Return what `resume_state` will be once this delivery is confirmed.

        Save it in the transaction that makes the events durable, with the delivery's `batch` as the number to
        acknowledge (or the one saved before, if it is None).
        """
        return self._session.resume_state(self._transport.cookies.dump(), delivery)

    def close(self, *, keep_session: bool = False) -> None:
        """Ask for an end in good order. It comes through the iterator, so do not stop to read it.

        A poll under way is cut short by one more connect, whose events are delivered too; then the server
        is told to end the session, unless it is to be kept for a successor; then comes `Stopped`, and the
        iterator ends. If the server does not answer, that takes a few tries.
        """
        if self._close is None:
            self._close = keep_session
            if self._closing is not None:
                self._closing.set_result(None)

    async def deliveries(self) -> AsyncIterator[Item]:
        """Yield deliveries and facts, in order, until `Stopped`. To be called once."""
        if self._closing is not None:
            raise RuntimeError("deliveries() was called before; make a new Client")
        self._closing = asyncio.get_running_loop().create_future()
        try:
            while True:
                match self._next():
                    case Finish(stopped=stopped):
                        yield stopped
                        return
                    case Pause(seconds=seconds):
                        await self._pause(seconds)
                        continue
                    case Send() | Listen() as action:
                        items = await self._carry_out(action)
                if not items and self._idle is not None:
                    await self._idle()
                for item in items:
                    yield item
                    while isinstance(item, Delivery) and item.batch is None and not item.confirmed:
                        await asyncio.sleep(self._session.pace())  # nobody else has a copy
                        item.attempt += 1
                        yield item
                    if isinstance(item, Delivery):
                        self._settle(item)
        finally:
            await self._let_go()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _next(self) -> Action:
        now = self._now()
        if self._close is not None and not self._session.closing:
            self._session.close(now, keep=self._close)
        return self._session.next(now)

    def _settle(self, delivery: Delivery) -> None:
        if delivery.confirmed:
            self._session.confirmed(delivery)
        else:
            self._session.withheld(delivery, self._now())

    async def _carry_out(self, action: Send | Listen) -> list[Item]:
        """Send or listen, and tell the session what came of it."""
        session = self._session
        try:
            body = await self._interruptible(self._perform(action))
            if body is None:
                return []
            messages = split(body)
        except CometdError as error:
            items = await self._settle_older()
            if is_refusal(error):
                self._transport.cookies.clear()  # they belong to a log-in that is over
            return items + session.failed(error, self._now(), self._wall())
        items = await self._settle_older()
        return items + session.answered(messages, self._now(), self._wall())

    async def _perform(self, action: Send | Listen) -> bytes:
        if isinstance(action, Listen):
            return await self._transport.receive(action.timeout)
        if action.purpose is Purpose.HANDSHAKE:
            await self._make_ready()
            return await self._transport.send(action.body, action.purpose, action.timeout)
        try:
            return await self._transport.send(action.body, action.purpose, action.timeout)
        except TransportFailed as error:
            if self._prepare is None or not is_refusal(error):
                raise
        await self._make_ready()
        return await self._transport.send(action.body, action.purpose, action.timeout)

    async def _make_ready(self) -> None:
        try:
            if self._prepare is not None:
                await self._prepare()
        except CometdError:
            raise
        except CalltrailError as error:
            raise TransportFailed(f"preparing: {error}", sent=False) from error

    async def _interruptible(self, work: Coroutine[Any, Any, bytes]) -> bytes | None:
        """Await the response; None if `close` came first and the session has let go of it."""
        if self._close is not None:
            return await work
        assert self._closing is not None, "deliveries() made it"
        poll = asyncio.create_task(work)
        try:
            await asyncio.wait((poll, self._closing), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _abandon(poll)
            raise
        if poll.done():
            return poll.result()
        if self._session.interrupt():
            self._older = poll
        else:
            await _abandon(poll)
        return None

    async def _settle_older(self) -> list[Item]:
        """Hear what became of the poll that was interrupted, now that the next one has been answered."""
        poll = self._older
        if poll is None:
            return []
        await asyncio.wait((poll,), timeout=_OLDER_POLL_TIMEOUT)
        if not poll.done():
            return []
        self._older = None
        try:
            return self._session.older_answered(split(poll.result()), self._wall())
        except CometdError as error:
            return self._session.older_failed(error, self._wall())

    async def _let_go(self) -> None:
        if self._older is not None:
            await _abandon(self._older)
        await self._transport.close()

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless `close` comes first."""
        if self._close is not None or self._closing is None:
            await asyncio.sleep(seconds)
        else:
            await asyncio.wait((self._closing,), timeout=seconds)


def is_refusal(error: CometdError) -> bool:
    """Whether the server does not know who asks, or does not let him."""
    return isinstance(error, TransportFailed) and error.status in (UNAUTHENTICATED, FORBIDDEN)


async def _abandon(poll: asyncio.Task[bytes]) -> None:
    """Cancel a request and see that it is gone. Whatever it still brought is not wanted."""
    poll.cancel()
    await asyncio.wait((poll,))
    if not poll.cancelled():
        poll.exception()
