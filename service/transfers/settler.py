"""Settles dispatched transfers by evidence: a background loop that never sends a transfer.

It wakes when something is recorded of a call with an open transfer, and when a transfer is due: its
dispatcher's claim is over without an answer (then it is in doubt), or its settle window is (then GWS is asked
for the call). Several settlers do no harm: each append is conditional.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from service.errors import AppendConflict, GwsError
from service.events import CallSnapshotTaken, NotificationReceived, call_stream, encode
from service.log import NewEvent, Producer
from service.loops import Loop
from service.postgres import database_errors
from service.transfers import work
from service.transfers.decider import (
    CONCLUDED,
    SETTLEABLE,
    CallTransfers,
    Contradict,
    GiveUp,
    Settle,
    State,
    Transfer,
)
from service.transfers.evidence import Seen, contradict, is_error, judge
from service.transfers.handler import TransferHandler

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 5.0
BREATH_S = 0.05  # between two rounds, so that one takes in what many transfers bring
ASK_AGAIN_S = 5.0  # when GWS could not be asked
NOTHING_NEW_S = 3_600.0  # when its answer settled nothing: a person may, or a later notification
SIDE_BY_SIDE = 3  # transfers looked at together
STALLED = "its dispatcher ended or stalled before it recorded an answer"
NOT_ASKED = (
    "the settle window is over, nothing recorded shows whether it happened, and GWS could not be asked"
)
NO_EVIDENCE = "the settle window is over, and what is recorded does not show whether it happened"


class Settler:
    """Looks for evidence of every open transfer of `handler`."""

    def __init__(self, handler: TransferHandler) -> None:
        self.loop = Loop("transfer settler", self._run)
        self._handler = handler
        self._journal = handler.journal
        self._pool = handler.journal.database.pool
        self._errors: dict[UUID, list[Seen]] = {}

    async def _run(self, loop: Loop) -> None:
        with database_errors():
            first = await self._pool.fetchval(work.FIRST_POSITION)
        seen = (await self._journal.log.next_position() if first is None else first) - 1
        while True:
            seen = await self.look(seen)
            loop.beat()
            await asyncio.sleep(BREATH_S)
            with database_errors():
                due_in_s = await self._pool.fetchval(work.NEXT_DUE)
            wait_s = LONGEST_WAIT_S if due_in_s is None else min(LONGEST_WAIT_S, max(0.001, due_in_s))
            await self._journal.log.watch.beyond(seen, timeout_s=wait_s)

    async def look(self, after: int) -> int:
        """One round: look at what is due, and at what the events after a position tell of; up to where."""
        upto = await self._journal.log.next_position() - 1
        await self._note_errors(after, upto)
        with database_errors():
            rows = await self._pool.fetch(work.TO_SETTLE, after, upto)
        await self._settle_rows(rows)
        return upto

    async def settle_all(self) -> int:
        """Bring every open transfer as far as evidence goes now, due or not; how many are still open."""
        with database_errors():
            rows = await self._pool.fetch(work.ALL)
        await self._settle_rows([{**row, "due": True} for row in rows])
        with database_errors():
            return len(await self._pool.fetch(work.ALL))

    async def settle(self, call_id: str, transfer_id: UUID, *, due: bool) -> None:
        """Bring one transfer as far as the evidence goes."""
        state = await self._journal.load(call_id)
        transfer = state.transfers.get(transfer_id)
        if transfer is None:
            return
        if transfer.state is State.DISPATCHED:
            if due:
                await self._journal.apply(state, GiveUp(transfer_id, STALLED))
        elif transfer.state in SETTLEABLE:
            await self._look(state, transfer, due=due)
        elif transfer.state in CONCLUDED:
            await self._watch(state, transfer, due=due)

    async def _look(self, state: CallTransfers, transfer: Transfer, *, due: bool) -> None:
        """Look for evidence; when it is time, or an error was told, ask GWS."""
        stream = await self._seen(state.call_id, transfer.dispatched_position or 0)
        errors = self._errors.get(transfer.id, [])
        finding = judge(state, transfer, stream, errors=errors, window_over=due)
        answer = None
        if finding is None and (due or errors):
            answer = await self._ask(transfer)
            if answer is not None:
                finding = judge(state, transfer, [*stream, answer], errors=errors, window_over=due)
        if finding is not None or answer is not None:
            self._errors.pop(transfer.id, None)
        if finding is not None:
            await self._journal.apply(state, Settle(transfer.id, finding))
        elif due and transfer.state is State.ACCEPTED:
            await self._journal.apply(state, GiveUp(transfer.id, NO_EVIDENCE if answer else NOT_ASKED))
        elif due:
            await self._execute(work.POSTPONE, transfer.id, NOTHING_NEW_S if answer else ASK_AGAIN_S)

    async def _watch(self, state: CallTransfers, transfer: Transfer, *, due: bool) -> None:
        """Look whether what came after the conclusion fits it; after the watch time, no more."""
        stream = await self._seen(state.call_id, min(transfer.evidence, default=0) - 1)
        finding = contradict(state, transfer, stream)
        if finding is not None:
            await self._journal.apply(state, Contradict(transfer.id, finding))
        elif due:
            await self._execute(*work.closing(transfer.id).alone())

    async def _settle_rows(self, rows: list[Any]) -> None:
        """Look at transfers side by side; each gets its turn although another may fail."""
        turns = asyncio.Semaphore(SIDE_BY_SIDE)

        async def settle(row: Any) -> None:
            async with turns:
                with suppress(AppendConflict):  # it has moved on; that is an event, and wakes us again
                    await self.settle(row["call_id"], row["transfer_id"], due=row["due"])

        results = await asyncio.gather(*(settle(row) for row in rows), return_exceptions=True)
        for error in results:
            if error is not None:
                raise error

    async def _note_errors(self, after: int, upto: int) -> None:
        """Keep the error notifications that name no call, for the one transfer that each can be about."""
        with database_errors():
            rows = await self._pool.fetch(work.CALLLESS, after, upto)
        if not rows:
            return
        for stored in await self._journal.log.at([row["position"] for row in rows]):
            seen = Seen.of(stored)
            if seen is None or not isinstance(seen.event, NotificationReceived) or not is_error(seen):
                continue
            with database_errors():
                sent = await self._pool.fetch(work.SENT_BY, seen.event.agent, seen.position)
            if len(sent) == 1:
                [row] = sent
                self._errors.setdefault(row["transfer_id"], []).append(seen)
                await self._settle_rows([{**row, "due": False}])

    async def _seen(self, call_id: str, after: int) -> list[Seen]:
        events = await self._journal.log.read_stream(call_stream(call_id), after=after)
        return [seen for stored in events if (seen := Seen.of(stored)) is not None]

    async def _ask(self, transfer: Transfer) -> Seen | None:
        """Ask GWS for the call and record what it says: evidence has a position. None: it does not answer."""
        request = transfer.request
        client = self._handler.dispatcher.client_for(transfer)
        if client is None:
            return None
        try:
            answer = await client.call(request.call_id)
        except GwsError as error:
            logger.info("GWS cannot be asked", extra={"transfer": transfer.id, "fault": str(error)})
            return None
        event = CallSnapshotTaken(
            call_id=request.call_id,
            agent=request.agent,
            at=datetime.now(UTC),
            http_status=answer.http_status,
        )
        stream = call_stream(request.call_id)
        new = NewEvent(Producer.new().key, stream, event.kind(), encode(event, answer.body))
        [position] = await self._journal.log.append([new])
        return Seen(position, event, answer.body)

    async def _execute(self, statement: str, *arguments: object) -> None:
        with database_errors():
            await self._pool.execute(statement, *arguments)
