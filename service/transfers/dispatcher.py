"""Sends transfers, each at most once, and the queue of those that wait to be sent.

A transfer is dispatched under a claim (`service.transfers.claims`), which is checked as the last step before
the first byte leaves. What had lost its claim is not sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Protocol
from uuid import UUID, uuid4

from service.errors import DatabaseUnavailable, GwsError, NotSent
from service.gws import Answer
from service.loops import Loop
from service.postgres import database_errors
from service.transfers import work
from service.transfers.claims import Claims
from service.transfers.decider import (
    CallTransfers,
    Dispatch,
    FollowUp,
    GiveUp,
    NothingSent,
    State,
    TakeAnswer,
    Transfer,
)
from service.transfers.journal import Journal

logger = logging.getLogger(__name__)

AT_ONCE = 64  # transfers from the queue that run at the same time in one process
LONGEST_WAIT_S = 5.0


class Client(Protocol):
    """GWS as one agent sees it, as far as transfers go; `GwsClient` is one."""

    async def command_call(
        self, call_id: str, body: bytes, *, may_send: Callable[[], Awaitable[bool]]
    ) -> Answer: ...

    async def call(self, call_id: str) -> Answer: ...


class Dispatcher:
    """Sends for `agents`, the REST clients by user name. `queue` is its background loop.

    A client can come with a transfer (`lent`). It is used for that one alone, and sends it at once or never:
    the queue does not have it.
    """

    def __init__(self, journal: Journal, agents: Mapping[str, Client]) -> None:
        self._lent: dict[UUID, Client] = {}
        self.journal = journal
        self.agents = agents
        self.queue = Loop("transfer queue", self._work_off)
        self._running: dict[UUID, asyncio.Task[CallTransfers]] = {}
        self._claims = Claims(journal)

    @contextmanager
    def lent(self, transfer_id: UUID, client: Client | None) -> Iterator[None]:
        """Have a transfer's own client while this lasts, and after it while evidence may be asked for."""
        if client is None:
            yield
            return
        self._lent[transfer_id] = client
        timing = self.journal.timing
        keep_s = timing.answer_s + timing.lease_s + 2 * timing.settle_s
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(keep_s, self._lent.pop, transfer_id, None)

    def client_for(self, transfer: Transfer) -> Client | None:
        """The client that sends a transfer, and asks for evidence of it."""
        return self._lent.get(transfer.id) or self.agents.get(transfer.request.agent)

    async def stop(self) -> None:
        """Let the requests that are under way come to their end."""
        await self.queue.stop()
        while self._running:
            await asyncio.wait(list(self._running.values()))
        await self._claims.stop()

    def start(
        self, state: CallTransfers, transfer_id: UUID, claimed_at: float
    ) -> asyncio.Task[CallTransfers]:
        """Send a dispatched transfer; `claimed_at` is the loop's time before its claim was made."""
        self._claims.hold(transfer_id, claimed_at)
        return self._run(transfer_id, self._attempt(state, state.transfers[transfer_id]))

    def _run(
        self, transfer_id: UUID, sending: asyncio._CoroutineLike[CallTransfers]
    ) -> asyncio.Task[CallTransfers]:
        task = asyncio.create_task(sending, name=f"transfer {transfer_id}")
        self._running[transfer_id] = task
        task.add_done_callback(lambda ended: self._ended(transfer_id, ended))
        return task

    def _ended(self, transfer_id: UUID, task: asyncio.Task[CallTransfers]) -> None:
        if self._running[transfer_id] is task:
            del self._running[transfer_id]
            self._claims.drop(transfer_id)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its answer stays unrecorded; when the claim is over it is found in doubt.
            logger.error("a transfer could not be recorded", extra={"transfer": transfer_id}, exc_info=error)

    async def _attempt(self, state: CallTransfers, transfer: Transfer) -> CallTransfers:
        """Send the request, once, and make what came back durable."""
        return await self.journal.record(state, await self._send(transfer))

    async def _send(self, transfer: Transfer) -> FollowUp:
        client = self.client_for(transfer)
        if client is None:
            return NothingSent(transfer.id, "nobody is there any more to send it", attempts=1)
        holds = partial(self._claims.holds, transfer.id)
        try:
            answer = await client.command_call(transfer.request.call_id, transfer.body, may_send=holds)
        except NotSent as error:
            attempts = 1 if transfer.id in self._lent else self.journal.timing.attempts
            return NothingSent(transfer.id, str(error), attempts)
        except GwsError as error:
            return GiveUp(transfer.id, str(error))
        return TakeAnswer(transfer.id, answer)

    # The queue

    async def _work_off(self, loop: Loop) -> None:
        """Take up what is due, and wait until there is more, or until more is due."""
        told = asyncio.Event()
        listener = await self.journal.database.connect()
        try:
            with database_errors():
                await listener.add_listener(work.QUEUE, lambda *_: told.set())
            while not listener.is_closed():
                told.clear()
                room = AT_ONCE - len(self._running)
                taken_up = await self.take_up(room) if room > 0 else []
                loop.beat()
                if len(taken_up) >= room:
                    await asyncio.wait(list(self._running.values()), return_when=asyncio.FIRST_COMPLETED)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(await self._until_due()):
                        await told.wait()
            raise DatabaseUnavailable("the connection on which the queue listens is gone")
        finally:
            listener.terminate()

    async def take_up(self, most: int) -> list[asyncio.Task[CallTransfers]]:
        """Claim what is to be sent and due, `most` transfers at most, and begin with each."""
        journal = self.journal
        claimed_at = asyncio.get_running_loop().time()
        with database_errors():
            rows = await journal.database.pool.fetch(
                work.CLAIM, list(self.agents), journal.owner, journal.timing.lease_s, most
            )
        for row in rows:
            self._claims.hold(row["transfer_id"], claimed_at)
        return [self._begin(row["call_id"], row["transfer_id"]) for row in rows]

    def _begin(self, call_id: str, transfer_id: UUID) -> asyncio.Task[CallTransfers]:
        before = self._running.get(transfer_id)
        return self._run(transfer_id, self._take_turn(call_id, transfer_id, before))

    async def _until_due(self) -> float:
        """The seconds until the next transfer is due; not more than LONGEST_WAIT_S, should no word come."""
        with database_errors():
            due_in_s = await self.journal.database.pool.fetchval(work.NEXT_CLAIM, list(self.agents))
        return LONGEST_WAIT_S if due_in_s is None else min(LONGEST_WAIT_S, max(0.001, due_in_s))

    async def _take_turn(
        self, call_id: str, transfer_id: UUID, before: asyncio.Task[CallTransfers] | None
    ) -> CallTransfers:
        """Dispatch a claimed transfer, and send it if it was still to be sent and nobody else has begun.

        A claim may run out before its transfer is dispatched, and then others claim it, this process too:
        `before` is what it began with an earlier claim.
        """
        if before is not None:
            await asyncio.wait([before])
        claimed_at, turn = asyncio.get_running_loop().time(), uuid4()
        state = await self.journal.record(
            await self.journal.load(call_id), Dispatch(transfer_id, datetime.now(UTC), turn)
        )
        transfer = state.transfers[transfer_id]
        if transfer.state is not State.DISPATCHED or transfer.turn != turn:
            return state
        self._claims.hold(transfer_id, claimed_at)
        return await self._attempt(state, transfer)
