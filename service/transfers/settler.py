"""Settles dispatched transfers by evidence: a background loop that never sends a transfer.

It wakes when something is recorded of a call with an open transfer, and when a transfer is due: its
dispatcher's time is over without an answer (then it is in doubt), or its settle window is (then GWS is asked
for the call). Several settlers do no harm: each append is conditional.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

from service.errors import AppendConflict, GwsError
from service.events import CallSnapshotTaken, call_stream, decode, encode
from service.log import EventLog, NewEvent, Producer
from service.loops import Loop
from service.postgres import Database, database_errors
from service.transfers import work
from service.transfers.decider import SETTLEABLE, UNANSWERED, GiveUp, Settle, Transfer
from service.transfers.evidence import Seen, judge
from service.transfers.handler import TransferHandler

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 5.0
ASK_AGAIN_S = 5.0


class Settler:
    """Looks for evidence of every open transfer of `handler`."""

    def __init__(self, database: Database, log: EventLog, handler: TransferHandler) -> None:
        self._database = database
        self._log = log
        self._handler = handler
        self.loop = Loop("transfer settler", self._run)

    async def _run(self, loop: Loop) -> None:
        seen_upto = -1
        while True:
            upto = await self._log.next_position() - 1
            with database_errors():
                rows = await self._database.pool.fetch(work.TO_SETTLE, seen_upto)
            for row in rows:
                with suppress(AppendConflict):  # it has moved on; whoever moved it looked at it
                    await self.settle(row["call_id"], row["transfer_id"], due=row["due"])
            seen_upto = upto
            loop.beat()
            with database_errors():
                due_in_s = await self._database.pool.fetchval(work.NEXT_DUE)
            wait_s = LONGEST_WAIT_S if due_in_s is None else min(LONGEST_WAIT_S, max(0.01, due_in_s))
            await self._log.watch.beyond(seen_upto, timeout_s=wait_s)

    async def settle_all(self) -> int:
        """Bring every open transfer as far as evidence goes now, due or not; how many are still open."""
        with database_errors():
            rows = await self._database.pool.fetch(work.ALL)
        for row in rows:
            with suppress(AppendConflict):
                await self.settle(row["call_id"], row["transfer_id"], due=True)
        with database_errors():
            return len(await self._database.pool.fetch(work.ALL))

    async def settle(self, call_id: str, transfer_id: UUID, *, due: bool) -> None:
        """Bring one transfer as far as the evidence goes."""
        state = await self._handler.load(call_id)
        transfer = state.transfers.get(transfer_id)
        if transfer is None:
            return
        if due and transfer.state in UNANSWERED:
            cause = "its dispatcher ended or stalled before it recorded an answer"
            await self._handler.apply(state, GiveUp(transfer_id, cause, sent=True))
            return
        if transfer.state not in SETTLEABLE or transfer.dispatched_position is None:
            return
        stream = await self._seen(call_id, transfer.dispatched_position)
        finding = judge(transfer, stream, window_over=False)
        if finding is None and due:
            stream.append(await self._ask(transfer))
            finding = judge(transfer, stream, window_over=True)
        if finding is not None:
            await self._handler.apply(state, Settle(transfer_id, finding))
        elif due:
            await self._postpone(transfer_id)

    async def _seen(self, call_id: str, after: int) -> list[Seen]:
        seen: list[Seen] = []
        for stored in await self._log.read_stream(call_stream(call_id), after=after):
            decoded = decode(stored.kind, stored.payload)
            if decoded is not None:
                seen.append(Seen(stored.position, *decoded))
        return seen

    async def _ask(self, transfer: Transfer) -> Seen:
        """Ask GWS for the call and record what it says: evidence has a position."""
        request = transfer.request
        try:
            answer = await self._handler.agents[request.agent].call(request.call_id)
            status, body = answer.http_status, answer.body
        except (GwsError, KeyError) as error:
            status, body = 0, str(error).encode()
        event = CallSnapshotTaken(
            call_id=request.call_id, agent=request.agent, at=datetime.now(UTC), http_status=status
        )
        new = NewEvent(Producer.new().key, call_stream(request.call_id), event.kind(), encode(event, body))
        [position] = await self._log.append([new])
        return Seen(position, event, body)

    async def _postpone(self, transfer_id: UUID) -> None:
        with database_errors():
            await self._database.pool.execute(work.POSTPONE, transfer_id, ASK_AGAIN_S)
