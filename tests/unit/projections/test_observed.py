from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from projection_reference import fold_all, recorded

from service.events import (
    NotificationReceived,
    TransferDispatched,
    TransferRejected,
    TransferRequested,
)
from service.log import Producer
from service.projections import TransferFacts
from service.projections.histories import notification
from service.projections.projection import Recorded

X, A, B, C = "7001", "15000", "15001", "15002"
SESSIONS = {number: Producer.new().key for number in (X, A, B, C)}


def tells(number: str, state: str, *others: str, **data: str) -> tuple[str, bytes]:
    return number, notification(number, "c", state, list(others), dict(data), millis=None)


def updated(number: str, *others: str) -> tuple[str, bytes]:
    return number, notification(number, "c", "Established", list(others), {}, why="ParticipantsUpdated")


def found(*told: Any) -> list[dict[str, Any]]:
    """The transfers found in what is told, in this order; events other than notices stand for themselves."""
    history: list[Recorded] = []
    for place, one in enumerate(told):
        if isinstance(one, tuple):
            agent, body = one
            event = NotificationReceived(session=SESSIONS[agent], agent=agent, count=place)
            history.append(recorded(place, event, body, "call-c"))
        else:
            history.append(recorded(place, one, b"{}", "transfer-c"))
    known = fold_all(TransferFacts(), history).values()
    return [transfer for one in known for transfer in one.observed.transfers]


def brief(transfers: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(one["agent"], one["destination"], one["grade"], one["operation"]) for one in transfers]


TALK = (tells(A, "Ringing", X), tells(A, "Established", X))
LEG, KEYS, PARTIES = (
    "destination's leg seen",
    "transfer keys came with the Released",
    "the other party's participants changed",
)


def test_a_leg_that_takes_the_place_of_a_released_one() -> None:
    transfers = found(*TALK, tells(A, "Released", X), tells(B, "Ringing", X), tells(B, "Established", X))
    assert brief(transfers) == [(A, B, LEG, "single-step")]
    assert transfers[0]["evidence"] == [2, 3]


def test_the_same_when_the_destination_is_heard_first() -> None:
    transfers = found(*TALK, tells(B, "Ringing", X), tells(A, "Released", X))
    assert brief(transfers) == [(A, B, LEG, "single-step")]
    assert transfers[0]["evidence"] == [1, 2, 3]


def test_the_reason_and_all_data_are_taken_from_where_the_transfer_is_seen() -> None:
    told = tells(B, "Ringing", X, TransferReason="Billing", Customer="1")
    (transfer,) = found(*TALK, tells(A, "Released", X), told)
    assert transfer["reason"] == "Billing"
    assert transfer["user_data"] == {"TransferReason": "Billing", "Customer": "1"}


def test_a_transfer_out_of_sight_is_known_by_its_keys() -> None:
    transfers = found(*TALK, tells(A, "Released", X, TransferReason="Sales"))
    assert brief(transfers) == [(A, None, KEYS, "single-step")]


def test_a_destination_that_is_seen_later_is_added() -> None:
    transfers = found(*TALK, tells(A, "Released", X, TransferReason="Sales"), tells(B, "Ringing", X))
    assert brief(transfers) == [(A, B, LEG, "single-step")]


def test_the_other_partys_view_names_a_destination_that_is_not_recorded() -> None:
    call = (tells(X, "Established", A), *TALK)
    transfers = found(*call, tells(A, "Released", X), updated(X, "0800123456"))
    assert brief(transfers) == [(A, "0800123456", PARTIES, "single-step")]


def test_all_evidence_of_one_transfer_makes_one_transfer() -> None:
    call = (tells(X, "Established", A), *TALK)
    ways = (tells(A, "Released", X, TransferReason="Sales"), tells(B, "Ringing", X), updated(X, B))
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        transfers = found(*call, *(ways[place] for place in order))
        assert brief(transfers) == [(A, B, LEG, "single-step")], order


def at(millis: int, number: str, state: str, **data: str) -> tuple[str, bytes]:
    return number, notification(number, "c", state, [X], dict(data), millis=millis)


def interleaved(*sessions: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """All orders in which what several sessions tell can be recorded: each keeps its own."""
    if not any(sessions):
        yield ()
    for place, told in enumerate(sessions):
        if told:
            rest = (*sessions[:place], told[1:], *sessions[place + 1 :])
            yield from ((told[0], *after) for after in interleaved(*rest))


def test_a_chain_is_found_however_late_each_session_tells_of_it() -> None:
    first = (at(1, A, "Ringing"), at(2, A, "Established"), at(3, A, "Released", TransferReason="Sales"))
    second = (at(3, B, "Ringing", TransferReason="Sales"), at(4, B, "Established"), at(5, B, "Released"))
    third = (at(5, C, "Ringing"), at(6, C, "Established"))
    for order in interleaved(first, second, third):
        assert sorted(brief(found(*order))) == [(A, B, LEG, "single-step"), (B, C, LEG, "single-step")]


def test_a_chain_back_to_its_beginning_is_found_however_late_each_session_tells_of_it() -> None:
    first = (
        at(1, A, "Established"),
        at(3, A, "Released", TransferReason="Sales"),
        at(5, A, "Established", TransferReason="Billing"),
        at(7, A, "Released", TransferReason="Fraud"),
    )
    second = (at(3, B, "Ringing"), at(4, B, "Established"), at(5, B, "Released"))
    third = (at(7, C, "Ringing"), at(8, C, "Established"))
    for order in interleaved(first, second, third):
        assert sorted(brief(found(*order))) == [
            (A, B, LEG, "single-step"),
            (A, C, LEG, "single-step"),
            (B, A, LEG, "single-step"),
        ]


def test_a_call_that_rang_in_vain_was_not_transferred_however_late_each_session_tells_of_it() -> None:
    passed_on = (
        (at(1, A, "Ringing"), at(2, A, "Released")),
        (at(2, B, "Ringing"), at(3, B, "Established")),
    )
    passed_back = (
        (at(1, A, "Ringing"), at(2, A, "Released"), at(4, A, "Ringing"), at(5, A, "Established")),
        (at(2, B, "Ringing"), at(4, B, "Released")),
    )
    for sessions in (passed_on, passed_back):
        for order in interleaved(*sessions):
            assert found(*order) == []


def test_a_recall_is_marked_however_late_each_session_tells_of_it() -> None:
    first = (at(1, A, "Established"), at(3, A, "Released"), at(5, A, "Ringing"), at(6, A, "Established"))
    for order in interleaved(first, (at(3, B, "Ringing"), at(5, B, "Released"))):
        (transfer,) = found(*order)
        assert brief([transfer]) == [(A, B, LEG, "single-step")]
        assert transfer["recalled"]


def test_two_steps_are_told_apart() -> None:
    held = notification(A, "c", "Held", [X], {}).replace(b'"Retrieve"', b'"CompleteTransfer"')
    transfers = found(*TALK, (A, held), tells(A, "Released", X), tells(B, "Established", X))
    assert brief(transfers) == [(A, B, LEG, "two-step")]


def test_a_chain_and_a_way_back() -> None:
    there = (tells(A, "Released", X), tells(B, "Ringing", X), tells(B, "Established", X))
    back = (tells(B, "Released", X), tells(A, "Ringing", X), tells(A, "Established", X))
    on = (tells(A, "Released", X), tells(C, "Ringing", X))
    assert brief(found(*TALK, *there, *back, *on)) == [
        (A, B, LEG, "single-step"),
        (B, A, LEG, "single-step"),
        (A, C, LEG, "single-step"),
    ]


def test_a_call_that_comes_back_unanswered_is_a_recall_and_no_second_transfer() -> None:
    recall = (tells(B, "Released", X), tells(A, "Ringing", X), tells(A, "Established", X))
    transfers = found(*TALK, tells(A, "Released", X), tells(B, "Ringing", X), *recall)
    assert brief(transfers) == [(A, B, LEG, "single-step")]
    assert transfers[0]["recalled"]


# What is no transfer


@pytest.mark.parametrize(
    "told",
    [
        (*TALK, tells(A, "Released", X)),
        (*TALK, tells(A, "Held", X), tells(A, "Established", X), tells(A, "Released", X)),
        (tells(A, "Ringing", X), tells(A, "Released", X)),
        (tells(A, "Released", X),),
        (tells(X, "Dialing", A), *TALK, tells(X, "Established", A), tells(A, "Released", X)),
        (
            *TALK,
            tells(A, "Established", X, TransferReason="Sales"),
            tells(A, "Released", X, TransferReason="Sales"),
        ),
    ],
    ids=["hang-up", "hold", "abandoned", "Released first", "internal", "reason attached long before"],
)
def test_a_plain_end_is_no_transfer(told: tuple[Any, ...]) -> None:
    assert found(*told) == []


def test_a_conference_is_no_transfer_not_even_when_its_host_leaves() -> None:
    joined = (updated(A, X, B), tells(B, "Ringing", A, X), tells(B, "Established", A, X))
    assert found(*TALK, *joined, tells(A, "Released", X, B), updated(B, X)) == []
    seen_by_x = (tells(X, "Established", A), *TALK, updated(X, A, B), *joined)
    assert found(*seen_by_x, tells(A, "Released", X, B), updated(X, B)) == []


def test_a_participant_who_is_put_out_of_a_conference_was_not_transferred() -> None:
    joined = (updated(A, X, B), tells(B, "Ringing", A, X), tells(B, "Established", A, X))
    assert found(*TALK, *joined, tells(B, "Released", A, X), updated(A, X)) == []


def test_repetitions_find_nothing_more() -> None:
    once = [*TALK, tells(A, "Released", X, TransferReason="Sales"), tells(B, "Ringing", X)]
    doubled = [one for one in once for _ in range(2)]
    assert brief(found(*doubled)) == brief(found(*once))


def command() -> tuple[TransferRequested, TransferDispatched]:
    transfer_id = Producer.new().key
    requested = TransferRequested(
        transfer_id=transfer_id, call_id="c", agent=A, caller=A, door="gws", destination=B, fingerprint=""
    )
    return requested, TransferDispatched(transfer_id)


def test_what_was_commanded_is_not_observed_again() -> None:
    assert found(*TALK, *command(), tells(A, "Released", X), tells(B, "Ringing", X)) == []
    assert found(*TALK, *command(), tells(B, "Ringing", X), tells(A, "Released", X)) == []


def test_a_rejected_command_leaves_the_next_transfer_to_be_observed() -> None:
    requested, sent = command()
    refused = TransferRejected(requested.transfer_id, 403)
    transfers = found(*TALK, requested, sent, refused, tells(A, "Released", X), tells(B, "Ringing", X))
    assert brief(transfers) == [(A, B, LEG, "single-step")]


numbers = st.sampled_from([X, A, B, C])
states = st.sampled_from(["Ringing", "Established", "Held", "Released", "Dialing", "Odd"])
notices = st.builds(
    lambda number, state, others: tells(number, state, *sorted(others - {number})),
    numbers,
    states,
    st.sets(numbers, max_size=3),
)


@settings(deadline=None)
@given(told=st.lists(notices, max_size=25))
def test_whatever_is_told_each_leg_is_transferred_away_at_most_once_a_time(told: list[Any]) -> None:
    transfers = found(*told)
    assert len({one["transfer_id"] for one in transfers}) == len(transfers)
    for one in transfers:
        assert one["destination"] != one["from"]
        arrivals = sum(number == one["from"] for number, _ in told)
        assert sum(other["from"] == one["from"] for other in transfers) <= arrivals
