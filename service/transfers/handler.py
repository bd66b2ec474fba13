"""The one handler behind every door: at most one attempt that could be executed, ever.

`TransferRequested` and `TransferDispatched` are durable, in one commit that only one of several racers can
win, before the first byte leaves for GWS. What comes back is durable before it is handed on. A crash in
between leaves a dispatched transfer without an answer; the settler turns it into one in doubt and looks for
evidence. Nothing here sends twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from service.errors import (
    AppendConflict,
    BadCommand,
    CallBusy,
    DatabaseUnavailable,
    KeyBusy,
    KeyReused,
    NotAuthenticated,
    OutcomeUnknown,
)
from service.events import (
    CommandRefused,
    TransferKeyClaimed,
    TransferRequested,
    call_stream,
    encode,
    key_stream,
)
from service.gws import dialect
from service.log import Condition, EventLog, NewEvent, Producer
from service.postgres import Database
from service.transfers.command import TransferCommand
from service.transfers.decider import (
    UNANSWERED,
    Abandon,
    CallTransfers,
    Request,
    Settle,
    State,
    Transfer,
    check_open,
)
from service.transfers.dispatcher import Client, Dispatcher
from service.transfers.evidence import Seen, Sight
from service.transfers.journal import KEY_COUNT, Extra, Journal
from service.transfers.work import Timing

BREATH_S = 0.01  # between two looks of one who waits for another's answer
LOOK_BACK = 20  # events of the call in which the agent's leg is looked for


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command stands when its caller is answered; `replayed` if an earlier request did the work."""

    transfer: Transfer
    replayed: bool


class TransferHandler:
    """Takes commands. `agents` are the REST clients by user name."""

    def __init__(
        self, database: Database, log: EventLog, agents: Mapping[str, Client], timing: Timing
    ) -> None:
        self.journal = Journal(database, log, timing)
        self.dispatcher = Dispatcher(self.journal, agents)
        self.agents = agents

    async def stop(self) -> None:
        """Let the requests that are under way come to their end."""
        await self.dispatcher.stop()

    async def transfer(
        self, command: TransferCommand, *, wait_s: float | None = None, through: Client | None = None
    ) -> Outcome:
        """Carry out `command`, or give back the outcome of the request that it repeats.

        It waits for GWS's answer. With `wait_s` (seconds) the command is queued and so long waited for; then
        it is given back as it stands, be it only requested. With `through` that client sends it and asks for
        evidence of it, whoever is configured; what would have to wait for its turn is then refused.

        Raises:
            NotAuthenticated: the agent is not one of ours.
            KeyReused: the key belongs to another request.
            KeyBusy: the request that it repeats is still running after the waiting time.
            CallBusy: another transfer of the call is live.
            DatabaseUnavailable: nothing was dispatched, and no request like it is known to have been.
            OutcomeUnknown: it may have been dispatched, or sent; ask again with the same key.

        """
        if through is None and command.agent not in self.agents:
            raise NotAuthenticated(f"agent {command.agent} is not configured")
        producer = Producer.new()
        with self.dispatcher.lent(producer.key, through):
            return await self._transfer(command, producer, wait_s, may_queue=through is None)

    async def _transfer(
        self, command: TransferCommand, producer: Producer, wait_s: float | None, *, may_queue: bool
    ) -> Outcome:
        state = CallTransfers(command.call_id)  # nothing has been before; where something has, it conflicts
        while True:
            if not may_queue:
                check_free(state)
            claimed_at = asyncio.get_running_loop().time()
            try:
                state = await self._claim(state, command, producer, at_once=wait_s is None)
            except AppendConflict:
                with not_the_first():
                    state = await self.journal.load(command.call_id)
                    earlier = await self._earlier(command, state)
                if earlier is not None:
                    return await self._await_answer(*earlier, replayed=True, wait_s=wait_s)
                continue
            if state.transfers[producer.key].state is State.DISPATCHED:
                sending = self.dispatcher.start(state, producer.key, claimed_at)
                state = await asyncio.shield(sending)  # a caller that goes does not stop what is dispatched
            return await self._await_answer(state, producer.key, replayed=False, wait_s=wait_s)

    async def refuse(
        self, command_body: bytes, call_id: str, caller: str, door: str, error: BadCommand
    ) -> None:
        """Record that a command which names a call was refused."""
        refusal = CommandRefused(
            call_id=call_id, caller=caller, door=door, field=error.field, problem=error.problem
        )
        await self.journal.refuse(refusal, command_body)

    async def settle(self, transfer_id: UUID, decision: Settle | Abandon) -> Outcome:
        """Take a person's decision on a transfer that evidence has not settled.

        Raises:
            NotFound: there is no such transfer.
            TransferSettled: it is not open to this decision.

        """
        call_id = await self.journal.call_of(transfer_id)
        while True:
            state = await self.journal.load(call_id)
            check_open(state.transfers[transfer_id], decision)
            try:
                state = await self.journal.apply(state, decision)
            except AppendConflict:
                continue
            return Outcome(state.transfers[transfer_id], replayed=False)

    async def _earlier(
        self, command: TransferCommand, state: CallTransfers
    ) -> tuple[CallTransfers, UUID] | None:
        """The transfer that `command` repeats: by its key, or without one by (call, destination)."""
        if command.key is None:
            live = state.live_without_key()
            same = live is not None and live.request.destination == command.destination
            return (state, live.id) if live is not None and same else None
        claimed = await self.journal.claimed_by(command.key_digest)
        if claimed is None:
            return None
        if claimed.fingerprint != command.fingerprint:
            raise KeyReused(claimed.fingerprint, command.fingerprint)
        # The call is part of the fingerprint; `state` may have been read before the claim was written.
        return await self.journal.load(claimed.call_id), claimed.transfer_id

    async def _claim(
        self, state: CallTransfers, command: TransferCommand, producer: Producer, *, at_once: bool
    ) -> CallTransfers:
        """Make the intent durable, on the condition that nobody else has come first."""
        extras = []
        if command.key is not None:
            claimed = TransferKeyClaimed(
                transfer_id=producer.key, call_id=command.call_id, fingerprint=command.fingerprint
            )
            stream = key_stream(command.key_digest)
            event = NewEvent(producer.event_id(KEY_COUNT), stream, claimed.kind(), encode(claimed))
            extras.append(Extra(event, Condition(stream, -1)))
        request = await self._request(command, producer)
        return await self.journal.apply(state, Request(request, command.body, at_once), *extras)

    async def _request(self, command: TransferCommand, producer: Producer) -> TransferRequested:
        """The request with what the record knew of the leg when it came."""
        leg = await self._leg(command)
        return TransferRequested(
            transfer_id=producer.key,
            call_id=command.call_id,
            agent=command.agent,
            caller=command.caller,
            door=command.door,
            destination=command.destination,
            fingerprint=command.fingerprint,
            conn_id=leg.call.conn_id if leg else None,
            keyed=command.key is not None,
            seen_state=leg.call.state if leg else None,
            seen_position=leg.position if leg else None,
            seen_at=leg.at if leg else None,
            warnings=warnings(command, leg),
            expires_at=datetime.now(UTC) + timedelta(seconds=self.journal.timing.patience_s),
        )

    async def _leg(self, command: TransferCommand) -> Sight | None:
        """The agent's leg of the call as it was told last."""
        for stored in await self.journal.log.last_of(call_stream(command.call_id), limit=LOOK_BACK):
            seen = Seen.of(stored)
            sight = Sight.of(seen) if seen is not None else None
            if sight is not None and sight.agent == command.agent:
                return sight
        return None

    async def _await_answer(
        self, state: CallTransfers, transfer_id: UUID, *, replayed: bool, wait_s: float | None
    ) -> Outcome:
        """Wait until a transfer has its answer, whoever sends it."""
        timing = self.journal.timing
        try:
            with not_the_first():
                async with asyncio.timeout(timing.wait_s if wait_s is None else wait_s):
                    while state.transfers[transfer_id].state in UNANSWERED:
                        seen = self.journal.log.watch.next_position - 1
                        state = await self.journal.load(state.call_id)
                        if state.transfers[transfer_id].state in UNANSWERED:
                            await self.journal.log.watch.beyond(seen)
                            await asyncio.sleep(BREATH_S)
        except TimeoutError:
            if replayed and wait_s is None:
                raise KeyBusy(transfer_id) from None
        return Outcome(state.transfers[transfer_id], replayed)


@contextmanager
def not_the_first() -> Iterator[None]:
    """In here it is known that the call has transfers, perhaps this very one, sent already.

    A database that is away must not look as if nothing had been dispatched.
    """
    try:
        yield
    except DatabaseUnavailable as error:
        raise OutcomeUnknown(f"what became of an earlier request cannot be read: {error}") from error


def warnings(command: TransferCommand, leg: Sight | None) -> tuple[str, ...]:
    """What speaks against a command as far as is recorded; GWS decides nevertheless."""
    if leg is None:
        return ("nothing is recorded of this agent's leg of the call",)
    found = []
    if dialect.SINGLE_STEP_TRANSFER not in leg.call.capabilities:
        found.append("the leg's capabilities do not include SingleStepTransfer")
    if leg.number == command.destination:
        found.append("the destination is the agent's own number")
    return tuple(found)


def check_free(state: CallTransfers) -> None:
    """Refuse what would have to wait for its turn.

    Raises:
        CallBusy: a transfer of the call waits for GWS's answer, or for its turn.

    """
    for transfer in state.transfers.values():
        if transfer.state in UNANSWERED:
            raise CallBusy(state.call_id, transfer.id)
