"""`transfer_facts`: what analysts count, one row per call with a row per transfer of it beside.

Transfers commanded through us and those only observed, in one form. The call's row keeps, as plain JSON, what
the derivation needs to go on from it; what is derived stands in `service.projections.facts`. Reasons, and
dates and hours in the site's time zone, are settings: after a change, `calltrail rebuild transfer_facts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any
from uuid import UUID

from service.config import Settings, load_settings
from service.events import (
    TRANSFER_STEPS,
    Event,
    NotificationReceived,
    TransferAbandoned,
    TransferAccepted,
    TransferConfirmed,
    TransferFailed,
    TransferInDoubt,
    TransferRejected,
    TransferRequested,
    TransferStep,
)
from service.projections.call_state import clean
from service.projections.fact_tables import parts_table, table
from service.projections.facts import (
    CARRIED_OUT,
    Moment,
    Reasons,
    Turn,
    call_columns,
    carried_on,
    last_turn,
    local_columns,
    micros,
    recorded_at,
    take_turn,
    transfer_columns,
)
from service.projections.observed_transfer import ObservedTransfer
from service.projections.projection import Key, Recorded, Row, Sweep, storable

State = dict[str, Any]
TOLD = ("conn_id", "call_type", "parent", "user_data")
told_of = itemgetter(*TOLD)


class TransferFacts:
    """The fold behind `call_facts`, and its parts, `transfer_facts`."""

    name = "transfer_facts"
    table = table
    parts_table = parts_table
    key = ("call_id",)
    versioned = False
    kinds = frozenset(kind.kind() for kind in TRANSFER_STEPS) | {NotificationReceived.kind()}
    by_call = True
    sweeping = frozenset[str]()
    early_indexes = ("(call_id)",)

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or load_settings()
        self._zone = settings.zone
        self._reasons = Reasons(settings.reason_keys, settings.reason_names)
        self._observed = ObservedTransfer(settings.reason_keys[0])

    def keys(self, recorded: Recorded) -> tuple[Key, ...]:
        return self._observed.keys(recorded)

    def sweep(self, recorded: Recorded) -> Sweep | None:  # noqa: ARG002 the protocol's
        return None

    def fold(self, key: Key, row: Row | None, recorded: Recorded) -> Row | None:
        if row is not None and recorded.position <= row["position_last"]:
            return row
        before: State = row["state"] if row is not None else beginning()
        state = before
        if recorded.kind in self._observed.kinds:
            state = self._observe(key, state, recorded)
        if not isinstance(recorded.event, NotificationReceived):
            state = self._command(state, recorded)
        if state is before:
            return row
        counted: Row = {}
        if row is None or any(state[name] is not before[name] for name in ("turns", "call_type")):
            first = row["started_at"] if row is not None else recorded.recorded_at
            call = call_columns(state["call_type"], first, state["turns"])
            counted = call | local_columns(call["started_at"], self._zone, "started")
        if row is None:
            row = {"call_id": key[0], "position_first": recorded.position}
        return {
            **row,
            **counted,
            "root_call_id": state["parent"] or key[0],
            "conn_id": state["conn_id"],
            "call_type": state["call_type"],
            "transfers": carried_out(state),
            "state": state,
            "position_last": recorded.position,
        }

    def parts(self, row: Row) -> Sequence[Row]:
        state = row["state"]
        transfers = transfers_of(state)
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
            for one, derived in zip(transfers, transfer_columns(transfers, state["turns"]), strict=True)
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

    def _observe(self, key: Key, state: State, recorded: Recorded) -> State:
        """What GWS tells of the call, and what `observed_transfer` makes of it."""
        known = state["observed"]
        observed = self._observed.fold(key, known, recorded)
        if observed is not known:
            state = {**state, "observed": observed}
        if not isinstance(recorded.event, NotificationReceived) or observed is None:
            return state
        notice = recorded.notice
        assert notice is not None
        if not recorded.clean:
            notice = clean(notice)
        told = (
            notice.conn_id or state["conn_id"],
            notice.call_type or state["call_type"],
            notice.parent_call_id or state["parent"],
            notice.user_data or state["user_data"],
        )
        if told_of(state) != told:
            state = {**state, **dict(zip(TOLD, told, strict=True))}
        if observed is known:
            return state
        now: Moment = [micros(recorded.recorded_at), notice.millis]
        turns = state["turns"]
        for device, leg in observed["legs"].items():
            if leg["position"] == recorded.position:
                turns = take_turn(turns, device, leg, now)
        found = dict(state["found"])
        for one in observed["transfers"]:
            if one["transfer_id"] not in found:
                turn = last_turn(turns, device=one["device"])
                found[one["transfer_id"]] = {"turn": turn, "known": recorded.position}
        return {**state, "turns": turns, "found": found}

    def _command(self, state: State, recorded: Recorded) -> State:
        """What becomes of a transfer that was commanded."""
        event = recorded.event
        assert isinstance(event, TransferStep)
        name = str(event.transfer_id)
        commanded = state["commanded"]
        if isinstance(event, TransferRequested):
            return {**state, "commanded": {name: self._requested(state, event, recorded), **commanded}}
        if name not in commanded:
            return state  # its beginning is not in the log: nothing can be said
        one = {
            **commanded[name],
            **details(event, micros(recorded.recorded_at)),
            "outcome": event.step,
            "last": recorded.position,
        }
        return {**state, "commanded": {**commanded, name: one}}

    def _requested(self, state: State, event: TransferRequested, recorded: Recorded) -> dict[str, Any]:
        given = (recorded.document or {}).get("userData")
        given = storable(given) if isinstance(given, dict) else {}
        carried = {key: value for key, value in state["user_data"].items() if key not in self._reasons.keys}
        agent = storable(event.agent)
        return {
            "agent": agent,
            "destination": storable(event.destination),
            "turn": last_turn(state["turns"], agent=agent),
            "left": [micros(recorded.recorded_at), None],
            "settled": None,
            "outcome": event.step,
            "status_code": None,
            "user_data": {**carried, **given},
            "first": recorded.position,
            "known": recorded.position,
            "last": recorded.position,
        }


def carried_out(state: State) -> int:
    """How often the call was transferred, as far as is known."""
    observed = (state["observed"] or {}).get("transfers", ())
    return len(observed) + sum(one["outcome"] in CARRIED_OUT for one in state["commanded"].values())


def beginning() -> State:
    """A call of which nothing is known yet."""
    return {
        "observed": None,
        "turns": [],
        "found": {},
        "commanded": {},
        "conn_id": None,
        "call_type": None,
        "parent": None,
        "user_data": {},
    }


def details(event: Event, now: int) -> dict[str, Any]:
    """What `event` says of a commanded transfer, beside its outcome."""
    match event:
        case TransferAccepted():
            return {"status_code": 0}
        case TransferRejected(status_code=code):
            return {"status_code": code, "settled": [now, None]}
        case TransferInDoubt(status_code=code):
            return {"status_code": code}
        case TransferConfirmed() | TransferFailed() | TransferAbandoned():
            return {"settled": [now, None]}
        case _:
            return {}


def placed(one: Mapping[str, Any], turns: Sequence[Turn]) -> dict[str, Any]:
    """The turn that a commanded transfer was to end, and when it was asked for.

    Under load a command may be in the log before what its agent's session tells of the call.
    """
    turn = one["turn"]
    if turn is None:
        turn = next((at for at, each in enumerate(turns) if each["agent"] == one["agent"]), None)
    return {"turn": turn, "left": carried_on(one["left"][0], None if turn is None else turns[turn])}


def transfers_of(state: State) -> list[dict[str, Any]]:
    """All transfers of a call, in one form, in the order in which they became known."""
    transfers = [
        {
            **one,
            **placed(one, state["turns"]),
            "transfer_id": name,
            "commanded": True,
            "operation": "single-step",
        }
        for name, one in state["commanded"].items()
    ]
    for one in (state["observed"] or {}).get("transfers", ()):
        at: Moment = [micros(datetime.fromisoformat(one["at"])), None]
        transfers.append(
            {
                "transfer_id": one["transfer_id"],
                "commanded": False,
                "operation": one["operation"],
                "agent": one["agent"],
                "destination": one["destination"],
                **state["found"][one["transfer_id"]],
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
