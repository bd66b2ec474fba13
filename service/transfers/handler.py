"""The one handler behind every door: request, dispatch, answer; at most one attempt, ever.

`TransferRequested` and `TransferDispatched` are durable, in one commit that only one of several racers can
win, before the first byte leaves for GWS. What comes back is durable before it is handed on. A crash in
between leaves a dispatched transfer without an answer; the settler turns it into one in doubt and looks for
evidence. Nothing here sends twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from service.errors import (
    AnswerLost,
    AppendConflict,
    BadCommand,
    DatabaseError,
    GwsError,
    KeyBusy,
    KeyReused,
    NotAuthenticated,
    NotFound,
    NotSent,
)
from service.events import (
    CommandRefused,
    Event,
    NotificationReceived,
    TransferKeyClaimed,
    TransferRequested,
    call_stream,
    decode,
    encode,
    key_stream,
    transfer_stream,
)
from service.gws import GwsClient, Notification, dialect
from service.log import Condition, EventLog, NewEvent, Producer
from service.transfers import work
from service.transfers.command import TransferCommand
from service.transfers.decider import (
    ARROWS,
    UNANSWERED,
    CallTransfers,
    Command,
    GiveUp,
    Request,
    State,
    TakeAnswer,
    Transfer,
    decide,
    evolve,
)

logger = logging.getLogger(__name__)

MARGIN_S = 5.0  # beyond the request's time-out: how long a dispatched transfer is its dispatcher's


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command stands when its caller is answered; `replayed` if an earlier request did the work."""

    transfer: Transfer
    replayed: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `answer_s`: GWS's time-out; `settle_s`: the settle window; `wait_s`: for another's outcome."""

    answer_s: float
    settle_s: float
    wait_s: float


class TransferHandler:
    """Takes commands. `agents` are the REST clients by user name."""

    def __init__(self, log: EventLog, agents: Mapping[str, GwsClient], timing: Timing) -> None:
        self.log = log
        self.agents = agents
        self.timing = timing
        self._running: dict[UUID, asyncio.Task[None]] = {}

    async def stop(self) -> None:
        """Let the requests that are under way come to their end."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    async def transfer(self, command: TransferCommand) -> Outcome:
        """Carry out `command`, or give back the outcome of the request that it repeats.

        Raises:
            NotAuthenticated: the agent is not one of ours.
            KeyReused: the key belongs to another request.
            KeyBusy: the request that it repeats is still running after the waiting time.
            CallBusy: another transfer of the call is live.
            DatabaseUnavailable: nothing was dispatched.
            OutcomeUnknown: whether it was dispatched is unknown; ask again with the same key.

        """
        if command.agent not in self.agents:
            raise NotAuthenticated(f"agent {command.agent} is not configured")
        producer = Producer.new()
        while True:
            earlier = await self._earlier(command)
            if earlier is not None:
                return Outcome(await self._await_answer(earlier), replayed=True)
            try:
                await self._claim(command, producer)
            except AppendConflict:
                continue  # somebody was faster: look again
            break
        task = asyncio.create_task(self._dispatch(command, producer), name=f"transfer {producer.key}")
        self._running[producer.key] = task
        task.add_done_callback(lambda _: self._running.pop(producer.key))
        await asyncio.shield(task)  # a caller that goes away does not stop what has been dispatched
        return Outcome(await self.find(command.call_id, producer.key), replayed=False)

    async def refuse(
        self, command_body: bytes, call_id: str, caller: str, door: str, error: BadCommand
    ) -> None:
        """Record that a command which names a call was refused."""
        refusal = CommandRefused(
            call_id=call_id, caller=caller, door=door, field=error.field, problem=error.problem
        )
        event = NewEvent(
            Producer.new().key, transfer_stream(call_id), refusal.kind(), encode(refusal, command_body)
        )
        await self.log.append([event])

    async def load(self, call_id: str) -> CallTransfers:
        """All transfers of a call, from the log."""
        state = CallTransfers(call_id)
        for stored in await self.log.read_stream(transfer_stream(call_id)):
            decoded = decode(stored.kind, stored.payload)
            if decoded is not None:
                state = evolve(state, stored.position, *decoded)
        return state

    async def find(self, call_id: str, transfer_id: UUID) -> Transfer:
        transfer = (await self.load(call_id)).transfers.get(transfer_id)
        if transfer is None:
            raise NotFound(f"call {call_id} has no transfer {transfer_id}")
        return transfer

    async def apply(self, state: CallTransfers, command: Command) -> Sequence[Event]:
        """Decide on `state`, make it durable, and say what happened (nothing, if it was overtaken).

        Raises:
            AppendConflict: the call's transfers have moved on; load them again.

        """
        events = decide(state, command)
        for event in events:
            transfer = state.transfers[event.transfer_id]  # type: ignore[attr-defined]
            following = ARROWS[transfer.state][type(event)]
            body = command.answer.body if isinstance(command, TakeAnswer) else None
            await self.log.append(
                [self._new(event, state.call_id, ORDER[following], body)],
                conditions=[Condition(transfer_stream(state.call_id), state.version)],
                also=work.moved(transfer.id, following, self.timing.settle_s),
            )
        return events

    async def _earlier(self, command: TransferCommand) -> Transfer | None:
        """The transfer that `command` repeats: by its key, or without one by (call, destination)."""
        if command.key is None:
            live = (await self.load(command.call_id)).live_without_key()
            return live if live is not None and live.request.destination == command.destination else None
        for stored in await self.log.read_stream(key_stream(command.key_digest)):
            decoded = decode(stored.kind, stored.payload)
            if decoded is not None and isinstance(claimed := decoded[0], TransferKeyClaimed):
                if claimed.fingerprint != command.fingerprint:
                    raise KeyReused(claimed.fingerprint, command.fingerprint)
                return await self.find(claimed.call_id, claimed.transfer_id)
        return None

    async def _claim(self, command: TransferCommand, producer: Producer) -> None:
        """Make the intent durable, on the condition that nobody else has come first."""
        state = await self.load(command.call_id)
        request = await self._request(command, producer)
        events = [
            self._new(event, command.call_id, count, command.body if event is request else None)
            for count, event in enumerate(decide(state, Request(request)))
        ]
        conditions = [Condition(transfer_stream(command.call_id), state.version)]
        if command.key is not None:
            claimed = TransferKeyClaimed(
                transfer_id=producer.key, call_id=command.call_id, fingerprint=command.fingerprint
            )
            stream = key_stream(command.key_digest)
            events.append(NewEvent(producer.event_id(KEY_COUNT), stream, claimed.kind(), encode(claimed)))
            conditions.append(Condition(stream, -1))
        within_s = self.timing.answer_s + MARGIN_S
        await self.log.append(
            events,
            conditions=conditions,
            also=[work.opened(producer.key, command.call_id, command.agent, within_s)],
        )

    async def _request(self, command: TransferCommand, producer: Producer) -> TransferRequested:
        """The request with what the record knew of the leg when it came."""
        conn_id = seen_state = seen_position = None
        warnings: list[str] = []
        for stored in await self.log.last_of(call_stream(command.call_id), limit=20):
            decoded = decode(stored.kind, stored.payload)
            event, body = decoded or (None, b"")
            notification = Notification.parse(body) if isinstance(event, NotificationReceived) else None
            call = notification.call if notification else None
            if isinstance(event, NotificationReceived) and event.agent == command.agent and call:
                conn_id, seen_state, seen_position = call.conn_id, call.state, stored.position
                if dialect.SINGLE_STEP_TRANSFER not in call.capabilities:
                    warnings.append("the leg's capabilities do not include SingleStepTransfer")
                if notification and notification.phone_number == command.destination:
                    warnings.append("the destination is the agent's own number")
                break
        else:
            warnings.append("nothing is recorded of this agent's leg of the call")
        return TransferRequested(
            transfer_id=producer.key,
            call_id=command.call_id,
            agent=command.agent,
            caller=command.caller,
            door=command.door,
            destination=command.destination,
            fingerprint=command.fingerprint,
            conn_id=conn_id,
            keyed=command.key is not None,
            seen_state=seen_state,
            seen_position=seen_position,
            warnings=tuple(warnings),
        )

    async def _dispatch(self, command: TransferCommand, producer: Producer) -> None:
        """Send the request, once, and make what came back durable."""
        result: Command
        try:
            answer = await self.agents[command.agent].command_call(command.call_id, command.body)
            result = TakeAnswer(producer.key, answer)
        except NotSent as error:
            result = GiveUp(producer.key, str(error), sent=False)
        except (AnswerLost, GwsError) as error:
            result = GiveUp(producer.key, str(error), sent=True)
        while True:
            try:
                await self.apply(await self.load(command.call_id), result)
            except AppendConflict:
                continue
            except DatabaseError:
                # The answer stays unrecorded; when the lease is over the settler finds the transfer in doubt.
                logger.exception(
                    "a transfer's answer could not be recorded", extra={"transfer": producer.key}
                )
            return

    async def _await_answer(self, transfer: Transfer) -> Transfer:
        """Wait until a transfer that another request dispatched has its answer."""
        try:
            async with asyncio.timeout(self.timing.wait_s):
                while transfer.state in UNANSWERED:
                    state = await self.load(transfer.request.call_id)
                    transfer = state.transfers[transfer.id]
                    if transfer.state in UNANSWERED:
                        await self.log.watch.beyond(state.version)
        except TimeoutError:
            raise KeyBusy(transfer.id) from None
        return transfer

    def _new(self, event: Event, call_id: str, count: int, body: bytes | None) -> NewEvent:
        producer = Producer(event.transfer_id)  # type: ignore[attr-defined]
        return NewEvent(producer.event_id(count), transfer_stream(call_id), event.kind(), encode(event, body))


KEY_COUNT = 9
ORDER: Mapping[State, int] = {
    State.REQUESTED: 0,
    State.DISPATCHED: 1,
    State.ACCEPTED: 2,
    State.REJECTED: 2,
    State.IN_DOUBT: 2,
    State.CONFIRMED: 3,
    State.FAILED: 3,
    State.ABANDONED: 3,
}
"""The count of the event that leads to each state: alternatives share one, so only one of them can be."""
