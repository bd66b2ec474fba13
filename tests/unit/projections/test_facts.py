from __future__ import annotations

import itertools
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from projection_reference import as_recorded, fold_all, recorded

from service.config import Settings, load_settings
from service.errors import BadConfig
from service.events import (
    NotificationReceived,
    TransferAccepted,
    TransferConfirmed,
    TransferDispatched,
    TransferRejected,
    TransferRequested,
)
from service.log import Producer
from service.projections import TransferFacts
from service.projections.facts import Reasons, elapsed, local_columns
from service.projections.histories import Histories, notification
from service.projections.projection import Recorded

SESSION = Producer.new().key
FACTS = TransferFacts(Settings(time_zone="Europe/Berlin"))
CALLER = "7001"


def says(
    position: int, number: str, state: str, *, company: list[str] | None = None, **about: Any
) -> Recorded:
    body = notification(number, "c", state, company or [CALLER], about.pop("data", {}), **about)
    event = NotificationReceived(session=SESSION, agent=number, count=position, channel="/v2/me/calls")
    return recorded(position, event, body, "call-c")


def commands(position: int, event: Any, body: bytes = b"") -> Recorded:
    return recorded(position, event, body, "transfer-c")


def requested(
    position: int, destination: str = "15001", reason: str | None = "Sales"
) -> tuple[Any, Recorded]:
    transfer_id = Producer.new().key
    event = TransferRequested(
        transfer_id=transfer_id,
        call_id="c",
        agent="15000",
        caller="15000",
        door="gws",
        destination=destination,
        fingerprint="0" * 64,
    )
    data = {} if reason is None else {"TransferReason": reason}
    body = msgspec.json.encode({"destination": {"phoneNumber": destination}, "userData": data})
    return transfer_id, commands(position, event, body)


def facts(history: list[Recorded], facts_of: TransferFacts = FACTS) -> list[dict[str, Any]]:
    [(key, known)] = fold_all(facts_of, history).items()
    return [dict(part) for part in facts_of.parts(facts_of.row(key, known))]


def handed_over(position: int, agent: str, to: str, millis: int, **data: str) -> list[Recorded]:
    """`agent` answers, talks for 30 s and transfers to `to`, which rings, all by GWS's clock."""
    return [
        says(position, agent, "Established", millis=millis, data=data),
        says(position + 1, agent, "Released", millis=millis + 30_000, data=data),
        says(position + 2, to, "Ringing", millis=millis + 30_001, data=data),
    ]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), repeats=st.lists(st.integers(0, 199), max_size=20))
def test_events_that_come_twice_change_nothing_and_calls_do_not_depend_on_each_other(
    seed: int, repeats: list[int]
) -> None:
    history = as_recorded(itertools.islice(Histories(seed=seed, live=5, agents=6).events(), 200))
    doubled = [one for place, one in enumerate(history) for one in [one] * (2 if place in repeats else 1)]
    by_call = sorted(history, key=lambda one: one.stream.partition("-")[2])
    rows = fold_all(FACTS, history)
    assert fold_all(FACTS, doubled) == rows
    assert fold_all(FACTS, by_call) == rows


def test_a_chain_that_comes_back_is_ping_pong() -> None:
    found = facts(
        [
            *handed_over(0, "15000", "15001", 0),
            *handed_over(3, "15001", "15002", 60_000),
            *handed_over(6, "15002", "15000", 120_000),
        ]
    )
    assert [one["chain_index"] for one in found] == [1, 2, 3]
    assert {one["chain_length"] for one in found} == {3}
    assert [one["is_ping_pong"] for one in found] == [False, False, True]
    assert [one["resource_role"] for one in found] == ["Received", "ReceivedTransfer", "ReceivedTransfer"]
    assert [one["talk_seconds_before"] for one in found] == [30.0, 30.0, 30.0]
    assert [one["handover_seconds"] for one in found] == [30.0, 30.0, None]
    assert [one["destination_type"] for one in found] == ["agent"] * 3


def test_a_rejected_transfer_is_no_link_of_the_chain() -> None:
    first, asked = requested(1)
    rejected = TransferRejected(first, 200, "", 2, "Destination is not valid.")
    second, again = requested(3, "15002")
    history = [
        says(0, "15000", "Established", millis=0),
        asked,
        commands(2, rejected),
        again,
        commands(4, TransferDispatched(second)),
        commands(5, TransferAccepted(second, 200, "")),
        says(6, "15000", "Released", millis=9_000),
        says(7, "15002", "Ringing"),
        commands(8, TransferConfirmed(second, "destination's leg seen", (6, 7))),
    ]
    found = {one["transfer_id"]: one for one in facts(history)}
    assert len(found) == 2
    assert (found[first]["technical_result"], found[first]["status_code"]) == ("Failed", 2)
    assert (found[first]["chain_index"], found[first]["is_carried_out"]) == (1, False)
    assert (found[second]["chain_index"], found[second]["chain_length"]) == (1, 1)
    assert found[second]["is_commanded"]
    assert found[second]["talk_seconds_before"] == 9.0


def test_a_customer_who_hangs_up_while_it_rings_is_told() -> None:
    history = [*handed_over(0, "15000", "15001", 0), says(3, "15001", "Released", millis=40_000)]
    [one] = facts(history)
    assert one["abandoned_after"]
    assert one["result_reason"] == "AbandonedWhileRinging"
    assert one["total_call_seconds"] is not None


def test_a_reason_of_an_earlier_transfer_is_not_a_commanded_ones() -> None:
    _, asked = requested(1, reason=None)
    [one] = facts([says(0, "15000", "Established", data={"TransferReason": "Old", "Segment": "Gold"}), asked])
    assert (one["reason"], one["reason_source"]) == ("unknown", None)
    assert one["user_data"] == {"Segment": "Gold"}


def test_reasons_are_found_under_several_keys_and_called_by_the_sites_names() -> None:
    reasons = Reasons(("Why", "TransferReason"), {"esc ": "Escalation"})
    for data, reason, source, mapped in (
        ({"TransferReason": " ESC"}, "Escalation", "TransferReason", True),
        ({"Why": "", "TransferReason": "a  b"}, "a b", "TransferReason", False),
        ({"Why": 7, "TransferReason": "x"}, "7", "Why", False),
        ({"TransferReason": "  "}, "unknown", "TransferReason", False),
        ({}, "unknown", None, False),
    ):
        found = reasons.columns(data)
        assert (found["reason"], found["reason_source"], found["is_reason_mapped"]) == (
            reason,
            source,
            mapped,
        )


def test_without_names_of_the_sites_no_reason_lacks_one() -> None:
    reasons = Reasons(("TransferReason",), {})
    assert reasons.columns({"TransferReason": "a  b"})["is_reason_mapped"]
    assert not reasons.columns({})["is_reason_mapped"]


def test_hours_are_the_sites() -> None:
    settings = Settings(time_zone="America/New_York")
    midnight = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
    assert local_columns(midnight, settings.zone, "requested") == {
        "requested_date": date(2026, 11, 23),
        "requested_hour": 21,
        "weekday": 1,
    }


def test_a_duration_is_taken_by_one_clock() -> None:
    assert elapsed([0, 10_000], [9_000_000, 12_500]) == 2.5
    assert elapsed([0, None], [9_000_000, 12_500]) == 9.0
    assert elapsed([5, 10], [0, 5]) == 0.0
    assert elapsed(None, [0, 5]) is None


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(BadConfig, match="Europe/Berlin"):
        load_settings(time_zone="Atlantis/Capital")


def test_a_command_that_is_recorded_before_its_leg_is_told_of_still_ends_that_leg() -> None:
    transfer, asked = requested(0)
    history = [
        asked,
        says(1, "15000", "Established", millis=0),
        says(2, "15000", "Released", millis=30_000),
        commands(3, TransferConfirmed(transfer, "own leg released", (2,))),
    ]
    [found] = facts(history)
    assert (found["from_dn"], found["talk_seconds_before"]) == ("15000", 30.0)
    assert found["requested_at"].timestamp() == 30.0
