"""`transfer_facts`: what analysts count, one row per call with a row per transfer of it beside.

Transfers commanded through us and those only observed, in one form. What the derivation must know of a call
to go on is kept in memory alone (`Known`): a call that was forgotten is folded again from its own events.
What is derived stands in `service.projections.facts`, what is observed in `service.projections.observed`.
Reasons, and dates and hours in the site's time zone, are settings: after a change, `calltrail rebuild
transfer_facts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from service.config import Settings, load_settings
from service.events import (
    TRANSFER_STEPS,
    Event,
    NotificationReceived,
    TransferAbandoned,
    TransferAccepted,
    TransferConfirmed,
    TransferDispatched,
    TransferFailed,
    TransferInDoubt,
    TransferRejected,
    TransferRequested,
    TransferStep,
    call_stream,
    transfer_stream,
)
from service.projections.call_state import clean
from service.projections.fact_tables import parts_table, table
from service.projections.facts import (
    CARRIED_OUT,
    Moment,
    Reasons,
    Turns,
    call_columns,
    carried_on,
    last_turn,
    local_columns,
    micros,
    recorded_at,
    take_turn,
    transfer_columns,
)
from service.projections.notice import Notice
from service.projections.observed import Command, State, device_of, noticed, observe
from service.projections.projection import Key, Recorded, Row, Sweep, storable

STREAM = "transfer-"


class Found(msgspec.Struct, frozen=True, gc=False):
    """When an observed transfer became known, and the turn that it ended."""

    known: int
    turn: int | None


class Known(msgspec.Struct, frozen=True, gc=False):
    """What the fold knows of a call at `position`. `commanded` and `found` are by the transfer's id.

    `first` is the position of the first event, recorded at `begun`; `changed` that of the last one which
    changed what readers see.
    """

    first: int
    begun: datetime
    position: int
    changed: int
    observed: State = State()
    turns: Turns = ()
    found: dict[str, Found] = {}
    commanded: dict[str, dict[str, Any]] = {}
    conn_id: str | None = None
    call_type: str | None = None
    parent: str | None = None
    user_data: dict[str, Any] = {}


class TransferFacts:
    """The fold behind `call_facts`, and its parts, `transfer_facts`; it goes from `Known` to `Known`."""

    name = "transfer_facts"
    table = table
    parts_table = parts_table
    key = ("call_id",)
    versioned = False
    kinds = frozenset(kind.kind() for kind in TRANSFER_STEPS) | {NotificationReceived.kind()}
    by_call = True
    sweeping = frozenset[str]()
    early_indexes = ()

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or load_settings()
        self._zone = settings.zone
        self._reasons = Reasons(settings.reason_keys, settings.reason_names)
        self._reason_key = settings.reason_keys[0]

    def keys(self, recorded: Recorded) -> tuple[Key, ...]:
        if recorded.kind == NOTIFIED:
            notice = recorded.notice
            return () if notice is None else ((notice.call_id,),)
        return ((storable(recorded.stream.removeprefix(STREAM)),),)

    def sweep(self, recorded: Recorded) -> Sweep | None:  # noqa: ARG002 the protocol's
        return None

    def streams(self, key: Key) -> tuple[str, ...]:
        return call_stream(key[0]), transfer_stream(key[0])

    def fold(self, key: Key, known: Known | None, recorded: Recorded) -> Known | None:
        position = recorded.position
        if known is None:
            before = Known(position, recorded.recorded_at, -1, position)
        elif position <= known.position:
            return known
        else:
            before = known
        notice = recorded.notice if recorded.kind == NOTIFIED else None
        if notice is None:
            after = self._commanded(key, before, recorded)
        else:
            after = self._noticed(key, before, recorded, notice if recorded.clean else clean(notice))
        return known if after is before else after

    def reads_the_same(self, before: Known, after: Known) -> bool:
        return before.changed == after.changed

    def row(self, key: Key, known: Known) -> Row:
        counted = call_columns(known.call_type, known.begun, known.turns)
        observed = known.observed.transfers
        commanded = sum(one["outcome"] in CARRIED_OUT for one in known.commanded.values())
        return {
            "call_id": key[0],
            **counted,
            **local_columns(counted["started_at"], self._zone, "started"),
            "root_call_id": known.parent or key[0],
            "conn_id": known.conn_id,
            "call_type": known.call_type,
            "transfers": len(observed) + commanded,
            "observed": list(observed) or None,
            "position_first": known.first,
            "position_last": known.changed,
            "known": known,
        }

    def parts(self, row: Row) -> Sequence[Row]:
        known: Known = row["known"]
        if not known.commanded and not known.observed.transfers:
            return ()
        transfers = transfers_of(known)
        ended = row["ended_at"]
        total = None if ended is None else (ended - row["started_at"]).total_seconds()
        same = {
            "call_id": row["call_id"],
            "root_call_id": row["root_call_id"],
            "conn_id": row["conn_id"],
            "total_call_seconds": total,
        }
        return [
            {
                **same,
                **self._own(one),
                **local_columns(derived["requested_at"], self._zone, "requested"),
                **derived,
            }
            for one, derived in zip(transfers, transfer_columns(transfers, known.turns), strict=True)
        ]

    def _own(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that a transfer has by itself."""
        return {
            "transfer_id": UUID(one["transfer_id"]),
            "settled_at": None if one["settled"] is None else recorded_at(one["settled"]),
            "agent_id": one["agent"],
            "destination": one["destination"],
            "operation": one["operation"],
            "is_commanded": one["commanded"],
            **self._reasons.columns(one["user_data"]),
            "outcome": one["outcome"],
            "status_code": one["status_code"],
            "user_data": one["user_data"],
            "position_first": one["first"],
            "position_known": one["known"],
            "position_last": one["last"],
        }

    def _noticed(self, key: Key, known: Known, recorded: Recorded, notice: Notice) -> Known:
        """What GWS tells of the call, and the transfers that can be seen in it."""
        position = recorded.position
        agent: str | None = recorded.event.agent  # type: ignore[attr-defined]
        told = noticed(
            known.observed, agent, notice, position, recorded.recorded_at, reason_key=self._reason_key
        )
        before = known.observed
        observed = before if told is None else observe(before, key[0], told)
        conn_id, call_type = notice.conn_id or known.conn_id, notice.call_type or known.call_type
        parent, data = notice.parent_call_id or known.parent, notice.user_data or known.user_data
        changed = known.changed
        if conn_id != known.conn_id or call_type != known.call_type or parent != known.parent:
            changed = position
        elif data == known.user_data:
            if observed is before:
                return known
            data = known.user_data  # of the same, one is kept
        turns, found = known.turns, known.found
        if observed is not before:
            device = device_of(notice)
            leg = observed.legs.get(device)
            if leg is not None and leg.position == position:
                turns = take_turn(turns, device, leg, (micros(recorded.recorded_at), notice.millis))
            if observed.transfers is not before.transfers:
                found = found_now(observed, turns, position) | found
            if turns is not known.turns or observed.transfers is not before.transfers:
                changed = position
        return Known(
            known.first,
            known.begun,
            position,
            changed,
            observed,
            turns,
            found,
            known.commanded,
            conn_id,
            call_type,
            parent,
            data,
        )

    def _commanded(self, key: Key, known: Known, recorded: Recorded) -> Known:
        """What becomes of a transfer that was commanded."""
        event, position = recorded.event, recorded.position
        assert isinstance(event, TransferStep)
        name = str(event.transfer_id)
        commanded = known.commanded
        if isinstance(event, TransferRequested):
            return replace(
                known,
                position=position,
                changed=position,
                commanded={name: self._requested(known, event, recorded), **commanded},
            )
        if name not in commanded:
            return known  # its beginning is not in the log: nothing can be said
        one = commanded[name]
        observed = known.observed
        if isinstance(event, TransferDispatched | TransferRejected | TransferFailed):
            command = Command(one["agent"], not isinstance(event, TransferDispatched), position)
            observed = observe(observed, key[0], command)
        after = {
            **one,
            **details(event, micros(recorded.recorded_at)),
            "outcome": event.step,
            "last": position,
        }
        return replace(
            known,
            position=position,
            changed=position,
            observed=observed,
            commanded={**commanded, name: after},
        )

    def _requested(self, known: Known, event: TransferRequested, recorded: Recorded) -> dict[str, Any]:
        given = (recorded.document or {}).get("userData")
        given = storable(given) if isinstance(given, dict) else {}
        carried = {key: value for key, value in known.user_data.items() if key not in self._reasons.keys}
        agent = storable(event.agent)
        return {
            "agent": agent,
            "destination": storable(event.destination),
            "turn": last_turn(known.turns, agent=agent),
            "left": (micros(recorded.recorded_at), None),
            "settled": None,
            "outcome": event.step,
            "status_code": None,
            "user_data": {**carried, **given},
            "first": recorded.position,
            "known": recorded.position,
            "last": recorded.position,
        }


NOTIFIED = NotificationReceived.kind()


def details(event: Event, now: int) -> dict[str, Any]:
    """What `event` says of a commanded transfer, beside its outcome."""
    match event:
        case TransferAccepted():
            return {"status_code": 0}
        case TransferRejected(status_code=code):
            return {"status_code": code, "settled": (now, None)}
        case TransferInDoubt(status_code=code):
            return {"status_code": code}
        case TransferConfirmed() | TransferFailed() | TransferAbandoned():
            return {"settled": (now, None)}
        case _:
            return {}


def found_now(observed: State, turns: Turns, position: int) -> dict[str, Found]:
    """All that is observed, as if it became known now."""
    return {
        one["transfer_id"]: Found(position, last_turn(turns, device=one["device"]))
        for one in observed.transfers
    }


def placed(one: Mapping[str, Any], turns: Turns) -> dict[str, Any]:
    """The turn that a commanded transfer was to end, and when it was asked for.

    Under load a command may be in the log before what its agent's session tells of the call.
    """
    turn = one["turn"]
    if turn is None:
        turn = next((at for at, each in enumerate(turns) if each.agent == one["agent"]), None)
    return {"turn": turn, "left": carried_on(one["left"][0], None if turn is None else turns[turn])}


def transfers_of(known: Known) -> list[dict[str, Any]]:
    """All transfers of a call, in one form, in the order in which they became known."""
    transfers = [
        {
            **one,
            **placed(one, known.turns),
            "transfer_id": name,
            "commanded": True,
            "operation": "single-step",
        }
        for name, one in known.commanded.items()
    ]
    for one in known.observed.transfers:
        at: Moment = (micros(datetime.fromisoformat(one["at"])), None)
        found = known.found[one["transfer_id"]]
        transfers.append(
            {
                "transfer_id": one["transfer_id"],
                "commanded": False,
                "operation": one["operation"],
                "agent": one["agent"],
                "destination": one["destination"],
                "turn": found.turn,
                "known": found.known,
                "left": at,
                "settled": at,
                "outcome": "recalled" if one["recalled"] else "observed",
                "status_code": None,
                "user_data": one["user_data"],
                "first": one["evidence"][0],
                "last": one["evidence"][-1],
            }
        )
    return sorted(transfers, key=lambda one: (one["known"], one["transfer_id"]))
