from collections.abc import Callable

import pytest

from service.simulator.agents import make_agents
from service.simulator.faults import Fault
from service.simulator.messages import SAMPLE_NOTIFICATIONS, call_notification
from service.simulator.options import Options
from service.simulator.switch import Call, Leg, Refused, Switch, View, merge

NUMBERS = ("15000", "15001", "15002")


@pytest.fixture
def switch() -> Switch:
    devices = {number: agent.device_id for number, agent in make_agents(1, 15000, 3).items()}
    return Switch(Options(), devices, lambda: 100.0)


def established(switch: Switch) -> tuple[Call, Leg]:
    call, _ = switch.place("15001", "15000")
    leg = call.leg("15000")
    assert leg is not None
    switch.answer(call, leg)
    return call, leg


def told(views: list[View]) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return [(view.number, view.notification_type, view.state, view.participants) for view in views]


def test_a_transfer_is_told_to_all_three(switch: Switch) -> None:
    call, leg = established(switch)
    assert told(switch.single_step_transfer(call, leg, "15002", [("Reason", "x")])) == [
        ("15000", "StatusChange", "Released", ("15001",)),
        ("15002", "StatusChange", "Ringing", ("15001",)),
        ("15001", "ParticipantsUpdated", "Established", ("15002",)),
        ("15001", "AttachedDataChanged", "Established", ("15002",)),
    ]


def test_attached_data_can_come_before_the_release(switch: Switch) -> None:
    switch._options.attached_data_first = True
    call, leg = established(switch)
    first, second, *_ = switch.single_step_transfer(call, leg, "15002", [("Reason", "x")])
    assert (first.notification_type, first.state) == ("AttachedDataChanged", "Established")
    assert second.state == "Released"


def test_a_hangup_ends_a_call_of_two_and_shrinks_a_conference(switch: Switch) -> None:
    call, leg = established(switch)
    switch.single_step_conference(call, leg, "15002", [])
    assert told(switch.hangup(call, leg)) == [
        ("15000", "StatusChange", "Released", ("15001", "15002")),
        ("15001", "ParticipantsUpdated", "Established", ("15002",)),
        ("15002", "ParticipantsUpdated", "Ringing", ("15001",)),
    ]
    caller = call.leg("15001")
    assert caller is not None
    assert told(switch.hangup(call, caller)) == [
        ("15001", "StatusChange", "Released", ("15002",)),
        ("15002", "StatusChange", "Released", ("15001",)),
    ]
    assert not switch.calls_of("15001")
    assert not switch._going


@pytest.mark.parametrize("state", ["Ringing", "Dialing", "Released"])
def test_no_transfer_before_or_after_the_talk(switch: Switch, state: str) -> None:
    call, leg = established(switch)
    leg.state = state
    with pytest.raises(Refused) as refused:
        switch.single_step_transfer(call, leg, "15002", [("Reason", "x")])
    assert refused.value.status_code == 3
    assert call.user_data == []


def test_a_held_call_can_be_transferred(switch: Switch) -> None:
    call, leg = established(switch)
    switch.hold(call, leg)
    assert "SingleStepTransfer" in switch.view(call, leg).capabilities
    assert switch.single_step_transfer(call, leg, "15002", [])


def test_merging_replaces_where_a_key_stands() -> None:
    pairs = [("a", 1), ("b", 2), ("a", 3)]
    merge(pairs, [("a", 9), ("c", 4)])
    assert pairs == [("a", 9), ("b", 2), ("c", 4)]


def test_ids_depend_on_the_seed_alone() -> None:
    make: Callable[[int], str] = lambda seed: Switch(Options(seed=seed), {}, float).place("1", "2")[0].id  # noqa: E731
    assert make(1) == make(1) != make(2)
    assert len(make(1)) == 32
    assert make_agents(1, 15000, 2)["15001"] == make_agents(1, 15001, 1)["15001"]


def test_a_sample_is_said_in_its_own_bytes_only_when_it_is_what_is_meant(switch: Switch) -> None:
    call, _ = switch.place(
        "15001",
        "15000",
        call_id="01RCC3N118B1V0SL8O7GK2LAES00000D",
        conn_id="007102719818000d",
        dnis="15001",
        sample=True,
    )
    leg = call.leg("15000")
    assert leg is not None
    switch.answer(call, leg)
    released, *_ = switch.single_step_transfer(call, leg, "15002", [])
    assert call_notification(released, "http://x", "8.5.2", 1) == SAMPLE_NOTIFICATIONS[0]
    call.user_data.append(("other", "data"))
    other = switch.view(call, leg, left=call.leg("15001"))
    assert call_notification(other, "http://x", "8.5.2", 1) != SAMPLE_NOTIFICATIONS[0]


def test_a_fault_that_could_never_strike_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no fault 'drop'"):
        Fault(kind="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        Fault(kind="error_notification", shape="round")  # type: ignore[arg-type]
