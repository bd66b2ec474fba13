"""Planning a redaction, and carrying it out."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from service.errors import (
    AppendConflict,
    CheckFailed,
    DatabaseUnavailable,
    NotFound,
    TransferUnderWay,
    UnderLegalHold,
)
from service.events import (
    Event,
    NotificationReceived,
    PayloadRedacted,
    RedactionRefused,
    UnreadableReceived,
    call_stream,
    decode,
    encode,
    transfer_stream,
)
from service.log import Condition, EventLog, NewEvent, Producer, StoredEvent, rfc3339
from service.postgres import Database, database_errors
from service.projections import Engine, Rebuilder
from service.redaction.blanking import Fields, plain_values
from service.redaction.holds import STREAM as HOLDS
from service.redaction.holds import Hold, check_approval, list_holds, require
from service.transfers.decider import CallTransfers, evolve

STREAM = "redactions"
AT_ONCE = 1_000  # events redacted in one transaction
TELLING_LENGTH = 4  # shorter values are in too many places to be looked for
REACHED_S = 600.0
OWN_STREAMS = frozenset({STREAM, HOLDS})
FINGERPRINTED = frozenset({"TransferRequested", "TransferKeyClaimed"})
"""They hold a hash of the command: whoever knows most of it could guess the rest."""

NOT_FOLDED = """
SELECT s.name, s.reason FROM projection_set_aside s
JOIN projection p ON p.name = s.name AND p.generation = s.generation AND p.live
WHERE s.position = ANY($1::bigint[])
"""
"""The views that could not take one of these redactions."""

MAY_HOLD = """
SELECT c.oid::regclass::text AS name, c.relkind = 'p' AS has_partitions
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
  AND (c.relkind IN ('r', 'm')
       OR c.relkind = 'p' AND EXISTS (SELECT FROM pg_statistic WHERE starelid = c.oid))
  AND NOT EXISTS (
    SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND i.inhparent = 'event_log'::regclass
      AND c.oid NOT IN (SELECT tableoid FROM event_log WHERE position = ANY($1::bigint[])))
ORDER BY c.oid
"""
"""Every table but those parts of the log in which nothing was redacted; and what has samples of its parts."""

CLEAR_AWAY = "VACUUM (ANALYZE, INDEX_CLEANUP on) {}"
"""The row versions that were replaced, and their entries in indexes; and new samples for the statistics."""
SAMPLE = "ANALYZE {}"
FORGET_SAMPLES = "VACUUM (INDEX_CLEANUP on) pg_statistic"
"""The samples that were replaced."""


@dataclass(frozen=True)
class Order:
    """Who wants which fields of a call blanked, and why."""

    call_id: str
    fields: Fields
    who: str
    why: str
    approved_by: str | None = None

    def __post_init__(self) -> None:
        require(call=self.call_id, by=self.who, why=self.why)
        check_approval(self.who, self.approved_by)


@dataclass(frozen=True)
class Plan:
    """What a redaction would change."""

    payloads: Mapping[int, bytes]
    """The new payload at each position that changes."""
    fields: Mapping[str, int]
    """How often each field is blanked."""
    remaining: Mapping[str, int]
    """Fields of the call's events in which a blanked value would still stand, and how often."""
    dictionaries: Sequence[int]
    """The codecs whose dictionary holds a blanked value: no redaction reaches them."""
    hold: Hold | None
    """The hold that forbids it."""
    conditions: Sequence[Condition] = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What a redaction did: the plan, and the positions of its `PayloadRedacted` events."""

    plan: Plan
    positions: Sequence[int]


class Redactor:
    """Redacts calls of `log`. `engine` need not run here, but somewhere: it folds the calls anew."""

    def __init__(self, database: Database, log: EventLog, engine: Engine) -> None:
        self._database = database
        self._log = log
        self._engine = engine

    async def plan(self, order: Order) -> Plan:
        """What `order` would change; nothing is changed.

        Raises:
            NotFound: nothing is recorded of the call.
            BadInput: an event needs one of the fields.
            TransferUnderWay: a transfer of the call is not concluded.

        """
        events = await self._events_of(order.call_id)
        if not events:
            raise NotFound(f"nothing is recorded of call {order.call_id}")
        version = self._check_concluded(order.call_id, events)
        holds = await list_holds(self._log)
        agents = {agent for one in events if (agent := agent_of(one)) is not None}
        times = [one.recorded_at for one in events]
        hold = next((one for one in holds.holds if one.covers(order.call_id, agents, times)), None)
        with_fingerprint = Fields([*order.fields.texts, "fingerprint"])
        payloads: dict[int, bytes] = {}
        counts: Counter[str] = Counter()
        values: set[str] = set()
        for one in events:
            fields = with_fingerprint if one.kind in FINGERPRINTED else order.fields
            new, blanked = fields.blank(one.kind, one.payload, order.call_id)
            if blanked:
                payloads[one.position] = new
            counts.update(path for path, _ in blanked)
            values.update(str(value) for _, value in blanked)
        telling = {value for value in values if len(value) >= TELLING_LENGTH}
        return Plan(
            payloads,
            counts,
            remaining(events, payloads, telling),
            await self._dictionaries_with(telling),
            hold,
            (holds.unchanged(), Condition(transfer_stream(order.call_id), version)),
        )

    async def redact(self, order: Order) -> Outcome:
        """Carry out `order`; one that was cut off is carried on, one that was carried out changes nothing.

        Returns when the views are folded anew and what the old rows left behind is cleared away.

        Raises:
            UnderLegalHold: a hold covers the call; that it was refused is recorded.
            DatabaseUnavailable: the log is redacted, but the views were not folded in time.
            CheckFailed: the log is redacted, but a view could not be folded.
            Conflict: the log is redacted, but a rebuild is running: order it again when that has ended.

        and what `plan` raises.

        """
        plan = await self.plan(order)
        if plan.hold is not None:
            await self._refuse(order, plan.hold)
        try:
            positions = [
                await self._log.redact(
                    {position: plan.payloads[position] for position in batch},
                    self._fact(order),
                    stream=STREAM,
                    conditions=plan.conditions,
                )
                for batch in batches(sorted(plan.payloads), AT_ONCE)
            ]
        except AppendConflict:  # a hold, or a transfer of the call, has come in between
            return await self.redact(order)
        redactions = await list_redactions(self._log, order.call_id)
        await self._views_folded([one["position"] for one in redactions])
        # Generations that were replaced, or are half built, are folded no more: they hold what was then.
        await Rebuilder(self._database, self._log).drop_old(list(self._engine.projections))
        await self._clear_away([position for one in redactions for position in one.get("events", ())])
        return Outcome(plan, positions)

    @staticmethod
    def _fact(order: Order) -> dict[str, object]:
        return {
            "call_id": order.call_id,
            "fields": order.fields.texts,
            "who": order.who,
            "why": order.why,
            "approved_by": order.approved_by,
        }

    async def _refuse(self, order: Order, hold: Hold) -> None:
        placed = hold.placed
        refused = RedactionRefused(
            order.call_id, order.fields.texts, order.who, order.why, placed.hold_id, placed.case
        )
        await self._log.append([NewEvent(Producer.new().key, STREAM, refused.kind(), encode(refused))])
        since = rfc3339(hold.placed_at)
        raise UnderLegalHold(order.call_id, placed.case, placed.who, since, placed.hold_id)

    async def _events_of(self, call_id: str) -> list[StoredEvent]:
        """Every event that tells of the call: of its streams, and others that name it, in all pieces."""
        own = [
            *await self._log.read_stream(call_stream(call_id)),
            *await self._log.read_stream(transfer_stream(call_id)),
        ]
        names_call = naming(call_id).search
        others: list[StoredEvent] = []
        in_pieces: list[StoredEvent] = []
        named: set[object] = set()
        after = -1
        while page := await self._log.read_others(("call", "transfer"), after=after):
            after = page[-1].position
            for one in page:
                if one.stream in OWN_STREAMS:
                    continue
                names_it = names_call(one.payload) is not None
                whole = whole_of(one)
                if whole is not None:
                    in_pieces.append(one)
                    named |= {whole} if names_it else set()
                elif names_it:
                    others.append(one)
        others += [one for one in in_pieces if whole_of(one) in named]
        return sorted(own + others, key=lambda event: event.position)

    @staticmethod
    def _check_concluded(call_id: str, events: Sequence[StoredEvent]) -> int:
        """Make sure that no transfer's request is needed any more; the last position of their stream."""
        state = CallTransfers(call_id)
        for one in events:
            if one.stream == transfer_stream(call_id) and (read := read_event(one)):
                state = evolve(state, one.position, *read)
        for transfer in state.transfers.values():
            if transfer.is_live:
                raise TransferUnderWay(call_id, transfer.id, transfer.state)
        return state.version

    async def _dictionaries_with(self, values: set[str]) -> list[int]:
        with database_errors():
            rows = await self._database.pool.fetch("SELECT codec, dictionary FROM log_codec ORDER BY codec")
        return [row["codec"] for row in rows if any(value.encode() in row["dictionary"] for value in values)]

    async def _views_folded(self, redactions: Sequence[int]) -> None:
        """Wait until every view has folded anew what the redactions at these positions concern."""
        end = await self._log.next_position() - 1
        if not await self._engine.reached(end, timeout_s=REACHED_S):
            raise DatabaseUnavailable("the views do not follow the log. Start the service, and redact again")
        with database_errors():
            row = await self._database.pool.fetchrow(NOT_FOLDED, redactions)
        if row is not None:
            raise CheckFailed(
                f"the view {row['name']} still holds old values: it could not be folded ({row['reason']}). "
                f"Run `calltrail rebuild {row['name']}`, then redact again"
            )

    async def _clear_away(self, redacted: Sequence[int]) -> None:
        """Let Postgres forget the row versions that were replaced, in the log at the positions `redacted`."""
        connection = await self._database.connect_as_owner()
        try:
            with database_errors():
                tables = await connection.fetch(MAY_HOLD, redacted)
                for has_partitions, statement in ((False, CLEAR_AWAY), (True, SAMPLE)):
                    named = [one["name"] for one in tables if one["has_partitions"] is has_partitions]
                    if named:
                        await connection.execute(statement.format(", ".join(named)), timeout=None)
                await connection.execute(FORGET_SAMPLES, timeout=None)
        finally:
            connection.terminate()


async def list_redactions(log: EventLog, call_id: str | None = None) -> list[dict[str, Any]]:
    """Every redaction and every refusal of one, in the order of the log."""
    found = []
    for stored in await log.read_stream(STREAM):
        match decode(stored.kind, stored.payload):
            case (PayloadRedacted() | RedactionRefused() as event, _) if call_id in {None, event.call_id}:
                entry: dict[str, Any] = {
                    "position": stored.position,
                    "recorded_at": rfc3339(stored.recorded_at),
                    "outcome": "redacted" if isinstance(event, PayloadRedacted) else "refused",
                    "call_id": event.call_id,
                    "fields": list(event.fields),
                    "who": event.who,
                    "why": event.why,
                }
                if isinstance(event, PayloadRedacted):
                    entry |= {
                        "approved_by": event.approved_by,
                        "events": [position for position, _ in event.events],
                    }
                else:
                    entry |= {"hold_id": str(event.hold_id), "case": event.case}
                found.append(entry)
    return found


def naming(call_id: str) -> re.Pattern[bytes]:
    """Finds the id where JSON has it, as a text of its own or as a part of a path, also in JSON cut short."""
    spelled = {call_id.encode(), json.dumps(call_id)[1:-1].encode()}
    return re.compile(rb"[\"/](?:%b)(?=[\"/\\?]|$)" % b"|".join(map(re.escape, sorted(spelled))))


def read_event(stored: StoredEvent) -> tuple[Event, bytes] | None:
    """The event and its body; None if it cannot be read."""
    try:
        return decode(stored.kind, stored.payload)
    except msgspec.DecodeError:
        return None


def agent_of(stored: StoredEvent) -> str | None:
    """The agent that an event names."""
    read = read_event(stored)
    return getattr(read[0], "agent", None) if read else None


def whole_of(stored: StoredEvent) -> object | None:
    """What an event is a piece of, if it is one: something too large for one event was cut into several."""
    if stored.kind not in {NotificationReceived.kind(), UnreadableReceived.kind()}:
        return None
    match read_event(stored):
        case (NotificationReceived(session=session, count=count, part=part, parts=parts), _) if parts > 1:
            return session, count - part
        case (UnreadableReceived(session=session, reason=reason), _):
            found = re.fullmatch(r"(.*) \(part \d+ of (\d+)\)", reason)
            return (session, *found.groups()) if found else None
    return None


def remaining(events: Sequence[StoredEvent], payloads: Mapping[int, bytes], values: set[str]) -> Counter[str]:
    """The fields in which one of `values` stands after the redaction, each with how often."""
    found: Counter[str] = Counter()
    if not values:
        return found
    for one in events:
        for part in payloads.get(one.position, one.payload).split(b"\n", 1):
            try:
                document = json.loads(part)
            except (ValueError, RecursionError):
                continue
            found.update(
                path for path, value in plain_values(document) if any(old in str(value) for old in values)
            )
    return found


def batches(positions: Sequence[int], size: int) -> list[Sequence[int]]:
    return [positions[at : at + size] for at in range(0, len(positions), size)]
