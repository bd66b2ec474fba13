"""Transfers in the log: read as state, and moved on by what the decider decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from service.errors import AppendConflict, DatabaseUnavailable, EventIdReused, NotFound, OutcomeUnknown
from service.events import (
    CommandRefused,
    Event,
    TransferAccepted,
    TransferInDoubt,
    TransferKeyClaimed,
    TransferRejected,
    TransferRequested,
    decode,
    encode,
    key_stream,
    transfer_stream,
)
from service.log import Condition, EventLog, NewEvent, Producer
from service.postgres import Database, database_errors
from service.transfers import work
from service.transfers.decider import (
    CallTransfers,
    Command,
    FollowUp,
    Request,
    TakeAnswer,
    Transfer,
    decide,
    evolve,
)
from service.transfers.work import Timing

KEY_COUNT = (1 << 32) - 1
"""The count of a key's claim among a transfer's events: beyond all others."""

MOST_FAILURES = 3  # of a record; each append has tried for ten seconds
ANSWERED = (TransferAccepted, TransferRejected, TransferInDoubt)


@dataclass(frozen=True, slots=True)
class Extra:
    """An event that is appended together with a decision, on a condition of its own."""

    event: NewEvent
    condition: Condition


@dataclass(frozen=True)
class Journal:
    """The transfers of `log`, for one process: `owner` is the token of its claims."""

    database: Database
    log: EventLog
    timing: Timing
    owner: UUID = field(default_factory=lambda: Producer.new().key)

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

    async def call_of(self, transfer_id: UUID) -> str:
        """The call that a transfer is of.

        Raises:
            NotFound: there is no such transfer.

        """
        with database_errors():
            stream = await self.database.pool.fetchval(work.STREAM_OF, transfer_id)
        if stream is None:
            raise NotFound(f"there is no transfer {transfer_id}")
        call_id: str = stream.removeprefix(transfer_stream(""))
        return call_id

    async def claimed_by(self, key_digest: str) -> TransferKeyClaimed | None:
        """What an Idempotency-Key was used for."""
        for stored in await self.log.read_stream(key_stream(key_digest)):
            decoded = decode(stored.kind, stored.payload)
            if decoded is not None and isinstance(decoded[0], TransferKeyClaimed):
                return decoded[0]
        return None

    async def apply(self, state: CallTransfers, command: Command, *extras: Extra) -> CallTransfers:
        """Decide on `state`, make it durable, and give the state after it (`state`, if it was overtaken).

        Raises:
            AppendConflict: the call's transfers have moved on; load them again.

        """
        events = decide(state, command)
        if not events:
            return state
        bodies = self._bodies(command)
        new: list[NewEvent] = []
        after = state
        for event in events:
            body = bodies.get(type(event))
            after = evolve(after, after.version, event, body or b"")
            transfer = after.transfers[event.transfer_id]
            new.append(self._new(event, state.call_id, transfer, body))
        also = [work.followed(events, after, transfer, self.owner, self.timing)]
        new += [extra.event for extra in extras]
        conditions = [Condition(transfer_stream(state.call_id), state.version)]
        conditions += [extra.condition for extra in extras]
        try:
            positions = await self.log.append(new, conditions=conditions, also=also)
        except EventIdReused as error:  # another process took the same step, with another result
            raise AppendConflict(transfer_stream(state.call_id), state.version, error.position) from error
        return self._moved(state, events, bodies, positions)

    async def record(self, state: CallTransfers, command: FollowUp) -> CallTransfers:
        """`apply`, again and again while others move the call's transfers, or the database is away a while.

        Raises:
            OutcomeUnknown: it could not be recorded, as far as is known. What it tells of has happened, so
                this is never `DatabaseUnavailable`, on which a caller may send the request by himself.

        """
        failed, overtaken = 0, False
        while True:
            try:
                if overtaken:
                    state, overtaken = await self.load(state.call_id), False
                return await self.apply(state, command)
            except AppendConflict:
                overtaken = True
            except (DatabaseUnavailable, OutcomeUnknown) as error:
                failed += 1
                if failed > MOST_FAILURES:
                    raise OutcomeUnknown(f"what became of a transfer cannot be recorded: {error}") from error

    async def refuse(self, refusal: CommandRefused, body: bytes) -> None:
        """Record that a command which names a call was refused."""
        event = NewEvent(
            Producer.new().key, transfer_stream(refusal.call_id), refusal.kind(), encode(refusal, body)
        )
        await self.log.append([event])

    @staticmethod
    def _bodies(command: Command) -> Mapping[type[Event], bytes]:
        """The bytes of others that the events of `command` carry."""
        if isinstance(command, Request):
            return {TransferRequested: command.body}
        if isinstance(command, TakeAnswer):
            return dict.fromkeys(ANSWERED, command.answer.body)
        return {}

    @staticmethod
    def _new(event: Event, call_id: str, transfer: Transfer, body: bytes | None) -> NewEvent:
        """The event as the transfer's next: alternatives have the same id, so only one of them can be."""
        event_id = Producer(transfer.id).event_id(transfer.steps - 1)
        return NewEvent(event_id, transfer_stream(call_id), event.kind(), encode(event, body))

    @staticmethod
    def _moved(
        state: CallTransfers,
        events: Sequence[Event],
        bodies: Mapping[type[Event], bytes],
        positions: list[int],
    ) -> CallTransfers:
        for event, position in zip(events, positions, strict=False):
            state = evolve(state, position, event, bodies.get(type(event), b""))
        return state
