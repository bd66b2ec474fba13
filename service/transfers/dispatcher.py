"""Sends transfers, each at most once, and the queue of those that wait to be sent.

A transfer is dispatched under a claim: a row of `transfer_work` with this process's token, good for
`Timing.lease_s` and renewed while the request runs. The claim is checked as the last step before the first
byte leaves, in the database (has somebody taken it over?) and by this process's own clock (was it stopped
for so long that somebody may have?). What had lost its claim is not sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from service.errors import DatabaseError, GwsError, NotSent
from service.gws import Answer
from service.loops import Loop
from service.postgres import database_errors
from service.transfers import work
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
RENEWALS = 3  # in one lease


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
        self._held_until: dict[UUID, float] = {}
        self._renewing: asyncio.Task[None] | None = None

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

    def start(
        self, state: CallTransfers, transfer_id: UUID, claimed_at: float
    ) -> asyncio.Task[CallTransfers]:
        """Send a dispatched transfer; `claimed_at` is the loop's time before its claim was made."""
        self._held_until[transfer_id] = claimed_at + self.journal.timing.lease_s
        return self._run(transfer_id, self._attempt(state, state.transfers[transfer_id]))

    def _run(
        self, transfer_id: UUID, work: asyncio._CoroutineLike[CallTransfers]
    ) -> asyncio.Task[CallTransfers]:
        task = asyncio.create_task(work, name=f"transfer {transfer_id}")
        self._running[transfer_id] = task
        task.add_done_callback(lambda ended: self._ended(transfer_id, ended))
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="transfer claims")
        return task

    def _ended(self, transfer_id: UUID, task: asyncio.Task[CallTransfers]) -> None:
        self._running.pop(transfer_id, None)
        self._held_until.pop(transfer_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its answer stays unrecorded; when the claim is over it is found in doubt.
            logger.error("a transfer could not be recorded", extra={"transfer": transfer_id}, exc_info=error)

    async def _attempt(self, state: CallTransfers, transfer: Transfer) -> CallTransfers:
        """Send the request, once, and make what came back durable."""
        return await self.journal.record(state, await self._send(transfer))

    async def _send(self, transfer: Transfer) -> FollowUp:
        async def may_send() -> bool:
            return await self._holds(transfer.id)

        client = self.client_for(transfer)
        if client is None:
            return NothingSent(transfer.id, "nobody is there any more to send it", attempts=1)
        try:
            answer = await client.command_call(transfer.request.call_id, transfer.body, may_send=may_send)
        except NotSent as error:
            attempts = 1 if transfer.id in self._lent else self.journal.timing.attempts
            return NothingSent(transfer.id, str(error), attempts)
        except GwsError as error:
            return GiveUp(transfer.id, str(error))
        return TakeAnswer(transfer.id, answer)

    async def _holds(self, transfer_id: UUID) -> bool:
        """Whether the claim still holds. Nothing is awaited between the clock's word and the first byte."""
        try:
            with database_errors():
                held = await self.journal.database.pool.fetchval(work.HOLDS, transfer_id, self.journal.owner)
        except DatabaseError:
            return False
        return bool(held) and asyncio.get_running_loop().time() < self._held_until.get(transfer_id, 0.0)

    async def _renew(self) -> None:
        """Renew the claims of what runs, while anything does."""
        loop, timing = asyncio.get_running_loop(), self.journal.timing
        while self._running:
            await asyncio.wait(list(self._running.values()), timeout=timing.lease_s / RENEWALS)
            running = list(self._running)
            asked_at = loop.time()
            if not running or all(
                self._held_until.get(one, 0.0) - asked_at > timing.lease_s / 2 for one in running
            ):
                continue
            try:
                with database_errors():
                    rows = await self.journal.database.pool.fetch(
                        work.RENEW, self.journal.owner, running, timing.lease_s
                    )
            except DatabaseError as error:
                logger.warning("claims could not be renewed", extra={"fault": str(error)})
                continue
            for row in rows:
                if row["transfer_id"] in self._held_until:
                    self._held_until[row["transfer_id"]] = asked_at + timing.lease_s

    # The queue

    async def _work_off(self, loop: Loop) -> None:
        """Claim what is to be sent and due, send it, and wait until there is more, or until it is due."""
        journal, pool = self.journal, self.journal.database.pool
        agents = list(self.agents)
        while True:
            seen = journal.log.watch.next_position - 1
            room = AT_ONCE - len(self._running)
            claimed_at = asyncio.get_running_loop().time()
            with database_errors():
                rows = await pool.fetch(
                    work.CLAIM, agents, journal.owner, journal.timing.lease_s, max(0, room)
                )
            for row in rows:
                self._held_until[row["transfer_id"]] = claimed_at + journal.timing.lease_s
                self._run(row["transfer_id"], self._take_turn(row["call_id"], row["transfer_id"]))
            loop.beat()
            if room <= len(rows):
                await asyncio.wait(list(self._running.values()), return_when=asyncio.FIRST_COMPLETED)
                continue
            with database_errors():
                due_in_s = await pool.fetchval(work.NEXT_CLAIM, agents)
            wait_s = LONGEST_WAIT_S if due_in_s is None else min(LONGEST_WAIT_S, max(0.001, due_in_s))
            await journal.log.watch.beyond(seen, timeout_s=wait_s)

    async def _take_turn(self, call_id: str, transfer_id: UUID) -> CallTransfers:
        """Dispatch a claimed transfer, and send it if it was still to be sent."""
        claimed_at = asyncio.get_running_loop().time()
        state = await self.journal.record(
            await self.journal.load(call_id), Dispatch(transfer_id, datetime.now(UTC))
        )
        transfer = state.transfers[transfer_id]
        if transfer.state is not State.DISPATCHED:
            return state
        self._held_until[transfer_id] = claimed_at + self.journal.timing.lease_s
        return await self._attempt(state, transfer)
