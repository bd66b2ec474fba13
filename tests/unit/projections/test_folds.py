from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from projection_reference import as_recorded, fold_all, recorded

from service.events import (
    CallsSnapshotTaken,
    GapSuspected,
    NotificationReceived,
    SessionClosed,
    SessionLost,
    SessionOpened,
    SessionResumed,
)
from service.log import Producer
from service.projections import CallState, Coverage, TransferAudit
from service.projections.coverage import as_known, overlapping
from service.projections.histories import HOST, Histories, notification
from service.projections.projection import Recorded

OLD, NEW = Producer.new().key, Producer.new().key
CALLS = CallState()
Told = dict[str, Any]


def heard(position: int, body: bytes, *, session: UUID = OLD, agent: str = "15000") -> Recorded:
    event = NotificationReceived(session=session, agent=agent, count=position, channel="/v2/me/calls")
    return recorded(position, event, body, "call-c")


def says(position: int, state: str, *, session: UUID = OLD, **about: Any) -> Recorded:
    about = {"participants": ["7001"], "data": {}} | about
    return heard(position, notification("15000", "c", state, **about), session=session)


def snapshot(position: int, calls: list[Any], *, session: UUID = NEW, **answer: Any) -> Recorded:
    event = CallsSnapshotTaken(
        session=session, agent="15000", at=datetime(2026, 1, 1, tzinfo=UTC), http_status=200
    )
    return recorded(
        position, event, msgspec.json.encode({"statusCode": 0, "calls": calls} | answer), "session-x"
    )


def leg(history: list[Recorded]) -> Told:
    rows = fold_all(CALLS, history)
    assert list(rows) == [("c", "device-15000")]
    return dict(rows["c", "device-15000"])


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), repeats=st.lists(st.integers(0, 199), max_size=20))
def test_events_that_come_twice_at_once_change_nothing(seed: int, repeats: list[int]) -> None:
    history = as_recorded(itertools.islice(Histories(seed=seed, live=5, agents=6).events(), 200))
    doubled = [
        one
        for place, one in enumerate(history)
        for one in itertools.repeat(one, 2 if place in repeats else 1)
    ]
    for projection in (CALLS, TransferAudit()):
        assert fold_all(projection, doubled) == fold_all(projection, history)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_calls_do_not_depend_on_how_they_interleave(seed: int) -> None:
    history = as_recorded(itertools.islice(Histories(seed=seed, live=5, agents=6).events(), 200))
    by_call = sorted(history, key=lambda one: one.stream.partition("-")[2])
    for projection in (CALLS, TransferAudit()):
        assert fold_all(projection, by_call) == fold_all(projection, history)


def test_a_call_that_is_first_seen_released_is_there() -> None:
    assert leg([says(0, "Released")])["state"] == "Released"


def test_an_unknown_state_is_kept_as_it_is() -> None:
    assert leg([says(0, "Ringing"), says(1, "Levitating")])["state"] == "Levitating"


def test_the_old_servers_form_is_folded() -> None:
    call = {"id": "0071", "state": "Ringing", "participants": ["7001"], "deviceUri": f"{HOST}/devices/d"}
    body = msgspec.json.encode({"data": {"call": call, "phoneNumber": "15000"}, "channel": "/v2/me/calls"})
    rows = fold_all(CALLS, [heard(0, body)])
    assert rows["0071", "d"]["participants"] == ["7001"]
    assert rows["0071", "d"]["occurred_at"] is None


def test_strings_that_postgres_does_not_take_are_replaced() -> None:
    body = notification("15000", "c", "Ringing", ["7001"], {"k": "@"}).replace(b"@", rb"\u0000\ud800")
    assert leg([heard(0, body)])["user_data"] == {"k": "\ufffd\ufffd"}


def test_of_two_sessions_the_one_that_tells_later_of_an_earlier_moment_is_not_believed() -> None:
    history = [says(0, "Established", millis=2000), says(1, "Ringing", millis=1000, session=NEW)]
    assert leg(history)["state"] == "Established"
    assert leg([history[0], says(1, "Held", millis=3000, session=NEW)])["state"] == "Held"


def test_one_sessions_order_counts_whatever_the_clocks_say() -> None:
    assert leg([says(0, "Established", millis=2000), says(1, "Held", millis=1000)])["state"] == "Held"


def test_released_is_believed_even_from_a_clock_that_is_behind() -> None:
    history = [says(0, "Established", millis=2000), says(1, "Released", millis=1000, session=NEW)]
    assert leg(history)["state"] == "Released"


def resource(state: str, call_id: str = "c") -> dict[str, Any]:
    return msgspec.json.decode(notification("15000", call_id, state, ["7001"], {}))["data"]["call"]


def test_a_call_missing_from_a_snapshot_is_over_and_nobody_knows_when() -> None:
    row = leg([says(0, "Established"), snapshot(1, [])])
    assert row["state"] == "Released"
    assert "unknown" in row["doubt"]
    assert row["occurred_at"] is None


def test_a_snapshot_brings_what_was_missed_and_new_calls() -> None:
    history = [says(0, "Ringing"), snapshot(1, [resource("Established"), resource("Held", "d")])]
    rows = fold_all(CALLS, history)
    assert rows["c", "device-15000"]["state"] == "Established"
    assert rows["c", "device-15000"]["doubt"] is None
    assert rows["d", "device-15000"]["agent"] == "15000"


def test_what_the_new_session_has_told_already_is_newer_than_its_snapshot() -> None:
    history = [says(0, "Established", session=NEW), snapshot(1, [])]
    assert leg(history)["state"] == "Established"
    assert leg([history[0], snapshot(1, [resource("Ringing")])])["state"] == "Established"


@pytest.mark.parametrize("answer", [{"statusCode": 4}, {"calls": None}, {"calls": "none"}])
def test_an_answer_that_is_no_snapshot_says_nothing(answer: dict[str, Any]) -> None:
    assert leg([says(0, "Established"), snapshot(1, **{"calls": [], **answer})])["state"] == "Established"


def test_after_a_snapshot_a_notification_takes_the_doubt_away() -> None:
    row = leg([says(0, "Established"), snapshot(1, []), says(2, "Held", session=NEW)])
    assert (row["state"], row["doubt"]) == ("Held", None)


# Coverage

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return T0 + timedelta(minutes=minutes)


def opened(minutes: int, session: UUID = OLD) -> SessionOpened:
    return SessionOpened(session=session, agent="15000", at=at(minutes), ack=True, channels=())


def lost(minutes: int, alive: int, session: UUID = OLD) -> SessionLost:
    return SessionLost(session=session, agent="15000", at=at(minutes), cause="402", last_alive=at(alive))


def fold(*events: Any) -> list[dict[str, Any]]:
    row = fold_all(Coverage(), [recorded(place, event) for place, event in enumerate(events)])[("15000",)]
    found: list[dict[str, Any]] = row["spans"]
    return found


def in_minutes(spans: list[dict[str, Any]]) -> list[tuple[str, int, int | None]]:
    def minutes(text: str | None) -> int | None:
        return None if text is None else int((datetime.fromisoformat(text) - T0).total_seconds() // 60)

    return [(one["kind"], minutes(one["from"]) or 0, minutes(one["to"])) for one in spans]


def spans(*events: Any) -> list[tuple[str, int, int | None]]:
    return in_minutes(fold(*events))


def test_a_gap_lasts_from_when_the_session_last_lived_until_the_next_opens() -> None:
    assert spans(opened(0), lost(10, 8), opened(12, NEW)) == [
        ("complete", 0, 8),
        ("missing", 8, 12),
        ("complete", 12, None),
    ]


def test_a_resumed_session_leaves_no_gap() -> None:
    assert spans(opened(0), SessionResumed(session=OLD, agent="15000", at=at(5))) == [("complete", 0, None)]


def test_a_poll_that_failed_leaves_a_doubtful_span() -> None:
    suspected = GapSuspected(session=OLD, agent="15000", at=at(5), cause="502", last_alive=at(4))
    assert spans(opened(0), suspected) == [("complete", 0, 4), ("doubtful", 4, None)]
    resumed = SessionResumed(session=OLD, agent="15000", at=at(6))
    certain = [("complete", 0, 4), ("doubtful", 4, 6), ("complete", 6, None)]
    assert spans(opened(0), suspected, resumed) == certain
    assert spans(opened(0), suspected, lost(7, 4)) == [("complete", 0, 4), ("missing", 4, None)]


def test_where_it_is_not_known_since_when_the_whole_span_is_in_question() -> None:
    suspected = GapSuspected(session=OLD, agent="15000", at=at(5), cause="502", last_alive=None)
    assert spans(opened(1), suspected) == [("doubtful", 1, None)]


@pytest.mark.parametrize(
    ("alive", "known"),
    [
        (4, [("complete", 0, 4), ("doubtful", 4, None)]),
        (None, [("doubtful", 0, None)]),
        (-1, [("doubtful", 0, None)]),
    ],
)
def test_of_a_session_that_nobody_goes_on_with_nothing_is_known_after_its_last_sign_of_life(
    alive: int | None, known: list[tuple[str, int, int | None]]
) -> None:
    alive_at = None if alive is None else at(alive)
    assert in_minutes(as_known(fold(opened(0)), alive_at, "nobody")) == known
    gone = fold(opened(0), lost(10, 8))
    assert as_known(gone, alive_at, "nobody") == gone
    assert as_known([], alive_at, "nobody") == []


def test_the_end_of_a_session_that_was_replaced_already_is_no_gap() -> None:
    closed = SessionClosed(session=OLD, agent="15000", at=at(3), reason="stopped")
    assert spans(opened(0), opened(2, NEW), closed, lost(4, 3)) == [("complete", 0, None)]


def test_gaps_that_overlap_a_time_are_found_and_no_others() -> None:
    history = [recorded(n, e) for n, e in enumerate((opened(0), lost(10, 8), opened(12, NEW)))]
    found = fold_all(Coverage(), history)[("15000",)]["spans"]
    assert [one["kind"] for one in overlapping(found, at(9), at(9))] == ["missing"]
    assert [one["kind"] for one in overlapping(found, at(1), None)] == ["missing"]
    assert overlapping(found, at(1), at(7)) == []
    assert overlapping(found, at(13), at(14)) == []


def test_an_audit_row_holds_each_step_once() -> None:
    history = as_recorded(itertools.islice(Histories(seed=3, live=3, agents=4).events(), 300))
    rows = fold_all(TransferAudit(), history)
    assert rows
    for row in rows.values():
        steps = [step["step"] for step in row["steps"]]
        assert steps == ["requested", "dispatched", "accepted", "confirmed"][: len(steps)]
        assert row["reason"] == row["user_data"]["TransferReason"]
