from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import CallBusy, TransferSettled
from service.events import Event, TransferAbandoned, TransferRejected, TransferRequested
from service.gws import Answer
from service.log import Producer
from service.transfers.decider import (
    ARROWS,
    FINAL,
    UNANSWERED,
    Abandon,
    CallTransfers,
    Command,
    Contradict,
    Dispatch,
    Finding,
    GiveUp,
    NothingSent,
    Request,
    Settle,
    State,
    TakeAnswer,
    Transfer,
    check_open,
    decide,
    evolve,
)

DIAGRAM = Path(__file__).parents[3] / "docs" / "transfers.md"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TURN = UUID("01234567-89ab-4cde-8f01-23456789abcd")
ATTEMPTS = 3


def request(transfer_id: UUID, *, keyed: bool = False, destination: str = "2") -> TransferRequested:
    return TransferRequested(
        transfer_id=transfer_id,
        call_id="c",
        agent="a",
        caller="a",
        door="gws",
        destination=destination,
        fingerprint="f",
        keyed=keyed,
        expires_at=NOW,
    )


def answer(status: int, code: int | None) -> Answer:
    body = b"<html>" if code is None else b'{"statusCode":%d}' % code
    return Answer.of(status, "application/json", body)


def happen(state: CallTransfers, command: Command) -> tuple[CallTransfers, list[Event]]:
    events = list(decide(state, command))
    body = command.answer.body if isinstance(command, TakeAnswer) else b"{}"
    for event in events:
        state = evolve(state, state.version + 1, event, body)
    return state, events


YES, NO = Finding(True, "g", (7,)), Finding(False, "g", (7,))


def follow_ups(transfer_id: UUID) -> list[Command]:
    """Every command there is, in every variety that decides something."""
    return [
        Dispatch(transfer_id, NOW, TURN),
        Dispatch(transfer_id, NOW + timedelta(seconds=1), TURN),
        *(
            TakeAnswer(transfer_id, answer(status, code))
            for status, code in product((200, 403, 500, 502), (None, *range(21)))
        ),
        GiveUp(transfer_id, "time-out"),
        NothingSent(transfer_id, "refused", ATTEMPTS),
        NothingSent(transfer_id, "refused", 1),
        Settle(transfer_id, YES),
        Settle(transfer_id, NO),
        Abandon(transfer_id, "WillardC", "asked the caller"),
        Contradict(transfer_id, NO),
    ]


def in_state(state: State) -> tuple[CallTransfers, UUID]:
    """A call with one transfer that is in `state`, reached by decisions alone."""
    reached: dict[State, CallTransfers] = {}
    transfer_id = Producer.new().key
    first, _ = happen(CallTransfers("c"), Request(request(transfer_id), b"{}", at_once=False))
    waiting = [first]
    while waiting:
        one = waiting.pop(0)
        now = one.transfers[transfer_id].state
        if now in reached:
            continue
        reached[now] = one
        waiting += [happen(one, command)[0] for command in follow_ups(transfer_id)]
    return reached[state], transfer_id


def test_every_arrow_is_walked_and_there_is_no_other() -> None:
    walked = {(None, "TransferRequested", State.REQUESTED)}
    for before in State:
        state, transfer_id = in_state(before)
        for command in follow_ups(transfer_id):
            after, events = happen(state, command)
            assert len(events) <= 1
            for event in events:
                walked.add((before, event.kind(), after.transfers[transfer_id].state))
    declared = {
        (before, kind.kind(), after) for before, leading in ARROWS.items() for kind, after in leading.items()
    }
    assert walked == declared


def test_the_diagram_shows_the_same_arrows() -> None:
    text = DIAGRAM.read_text(encoding="utf-8")
    [mermaid] = re.findall(r"```mermaid\n(.*?)```", text, flags=re.DOTALL)
    lines = re.findall(r"^\s*(\S+) --> (\S+) : (\w+)$", mermaid, flags=re.MULTILINE)
    drawn = {(before, after, kind) for before, after, kind in lines if after != "[*]"}
    declared = {
        ("[*]" if before is None else before.value, after.value, kind.kind())
        for before, leading in ARROWS.items()
        for kind, after in leading.items()
    }
    assert drawn == declared
    ends = set(re.findall(r"^\s*(\S+) --> \[\*\]$", mermaid, flags=re.MULTILINE))
    assert ends == {state.value for state in FINAL}


def test_final_states_lead_nowhere_but_to_a_contradiction() -> None:
    for state in FINAL:
        assert set(ARROWS.get(state, {}).values()) <= {State.CONTRADICTED}


@pytest.mark.parametrize("code", [1, 2, 3, 5, 6, 8, 10, 20])
@pytest.mark.parametrize("status", [200, 400, 403, 404, 500])
def test_gws_says_no(status: int, code: int) -> None:
    state, transfer_id = in_state(State.DISPATCHED)
    after, _ = happen(state, TakeAnswer(transfer_id, answer(status, code)))
    assert after.transfers[transfer_id].state is State.REJECTED


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, 4), (200, 4), (200, 9), (500, None), (502, None), (503, None), (504, None), (200, None), (200, 7)],
)
def test_it_stays_open_whether_it_happened(status: int, code: int | None) -> None:
    state, transfer_id = in_state(State.DISPATCHED)
    after, _ = happen(state, TakeAnswer(transfer_id, answer(status, code)))
    assert after.transfers[transfer_id].state is State.IN_DOUBT


def test_accepted_is_statuscode_0_whatever_the_http_status() -> None:
    state, transfer_id = in_state(State.DISPATCHED)
    for status in (200, 202, 500):
        after, _ = happen(state, TakeAnswer(transfer_id, answer(status, 0)))
        assert after.transfers[transfer_id].state is State.ACCEPTED


def test_what_was_certainly_not_sent_is_tried_again_up_to_a_bound() -> None:
    transfer_id = Producer.new().key
    state, _ = happen(CallTransfers("c"), Request(request(transfer_id), b"{}"))
    kinds = []
    while (now := state.transfers[transfer_id].state) not in FINAL:
        command: Command = Dispatch(transfer_id, NOW, TURN)
        if now is State.DISPATCHED:
            command = NothingSent(transfer_id, "refused", ATTEMPTS)
        state, events = happen(state, command)
        kinds += [event.kind() for event in events]
    assert kinds.count("TransferDispatched") == ATTEMPTS - 1
    assert kinds[-1] == "TransferRejected"
    assert state.transfers[transfer_id].attempts == ATTEMPTS


def test_a_late_answer_ends_the_doubt_of_a_stalled_dispatcher() -> None:
    state, transfer_id = in_state(State.IN_DOUBT)
    for code, expected in ((0, State.ACCEPTED), (6, State.REJECTED)):
        after, _ = happen(state, TakeAnswer(transfer_id, answer(200, code)))
        assert after.transfers[transfer_id].state is expected
    assert happen(state, TakeAnswer(transfer_id, answer(502, None)))[1] == []


def test_a_request_that_is_too_old_is_not_sent() -> None:
    state, transfer_id = in_state(State.REQUESTED)
    _, [event] = happen(state, Dispatch(transfer_id, NOW + timedelta(seconds=1), TURN))
    assert isinstance(event, TransferRejected)


def test_people_decide_only_what_is_open() -> None:
    for before in State:
        state, transfer_id = in_state(before)
        transfer = state.transfers[transfer_id]
        for command in (Settle(transfer_id, YES), Abandon(transfer_id, "W", "why")):
            if happen(state, command)[1]:
                check_open(transfer, command)
            else:
                with pytest.raises(TransferSettled):
                    check_open(transfer, command)


def test_one_at_a_time_per_call() -> None:
    first, second = Producer.new().key, Producer.new().key
    state, _ = happen(CallTransfers("c"), Request(request(first, keyed=True), b"{}"))
    state, events = happen(state, Request(request(second, keyed=True), b"{}"))
    assert [event.kind() for event in events] == ["TransferRequested"]
    assert happen(state, Dispatch(second, NOW, TURN))[1] == []
    state, _ = happen(state, TakeAnswer(first, answer(200, 0)))
    assert [event.kind() for event in happen(state, Dispatch(second, NOW, TURN))[1]] == ["TransferDispatched"]


def test_without_keys_a_live_transfer_keeps_others_away() -> None:
    for before in State:
        state, _ = in_state(before)
        other = request(Producer.new().key)
        if before in FINAL:
            assert decide(state, Request(other, b"{}"))
        else:
            with pytest.raises(CallBusy):
                decide(state, Request(other, b"{}"))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 200)), max_size=40))
def test_whatever_comes_in_whatever_order(choices: list[tuple[int, int]]) -> None:
    """Three keyed transfers of one call, and any commands: the invariants that the rest relies on."""
    ids = [Producer.new().key for _ in range(3)]
    state = CallTransfers("c")
    for transfer_id in ids:
        state, _ = happen(state, Request(request(transfer_id, keyed=True), b"{}", at_once=False))
    history: dict[UUID, list[Event]] = {one: [] for one in ids}
    for which, number in choices:
        commands = follow_ups(ids[which])
        state, events = happen(state, commands[number % len(commands)])
        history[ids[which]] += events
        assert sum(one.state is State.DISPATCHED for one in state.transfers.values()) <= 1
    for transfer_id, events in history.items():
        transfer: Transfer = state.transfers[transfer_id]
        kinds = [event.kind() for event in events]
        sent = kinds.count("TransferDispatched") - kinds.count("TransferNotSent")
        assert sent <= 1, "sent again although it may have been executed"
        assert transfer.steps == len(events) + 1
        concluded = [k for k in kinds if k in {"TransferConfirmed", "TransferFailed", "TransferAbandoned"}]
        assert len(concluded) <= 1
        if transfer.state in UNANSWERED:
            assert transfer.answer is None
        if any(isinstance(event, TransferAbandoned) for event in events):
            assert transfer.state is State.ABANDONED


def test_an_event_without_an_arrow_changes_nothing() -> None:
    """Readers survive what they do not expect."""
    events = {}
    for before in State:
        state, transfer_id = in_state(before)
        for command in follow_ups(transfer_id):
            for event in decide(state, command):
                events[type(event)] = event
    for before in State:
        state, transfer_id = in_state(before)
        for kind, event in events.items():
            own = msgspec.structs.replace(event, transfer_id=transfer_id)
            after = evolve(state, state.version + 1, own, b"")
            assert (after.transfers == state.transfers) == (kind not in ARROWS.get(before, {}))
