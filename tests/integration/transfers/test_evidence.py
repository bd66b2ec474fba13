from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.engine import URL
from transfer_site import OPEN, QUICK, Site, open_site

from service.errors import TransferSettled
from service.simulator import Simulator
from service.transfers import Abandon, Finding, Settle, State, work
from service.transfers.evidence import Grade, is_error
from service.transfers.settler import NOT_ASKED

PATIENT = replace(QUICK, settle_s=60.0)

FAULTS: list[tuple[str, dict[str, Any], State]] = [
    ("late_answer", {"seconds": 0.2}, State.CONFIRMED),
    ("drop_before_execution", {}, State.FAILED),
    ("drop_after_execution", {}, State.CONFIRMED),
    ("http_500", {"executed": True}, State.CONFIRMED),
    ("http_500", {"executed": False}, State.FAILED),
    ("http_502", {"executed": True}, State.CONFIRMED),
    ("http_502", {"executed": False}, State.FAILED),
    ("no_status_code", {"executed": True}, State.CONFIRMED),
    ("no_status_code", {"executed": False}, State.FAILED),
    ("silence", {}, State.FAILED),
    ("reject", {"status_code": 2}, State.REJECTED),
    ("notification_first", {"seconds": 0.2}, State.CONFIRMED),
]


@pytest.mark.parametrize(("kind", "rule", "expected"), FAULTS)
async def test_each_behaviour_of_gws_ends_as_it_really_went(
    site: Site, kind: Any, rule: dict[str, Any], expected: State
) -> None:
    call = await site.seen_call()
    fault = site.simulator.faults.add(kind, **rule)
    await site.post(call.id)
    transfer = await site.ended(call.id)
    assert fault.struck == 1
    assert transfer.state is expected
    assert site.executed(call.id) == (expected is State.CONFIRMED)
    assert len(site.simulator.truth.commands) == 1
    if expected is not State.REJECTED:
        assert transfer.outcome is not None
        for position in transfer.outcome.evidence:  # type: ignore[attr-defined]
            [event] = await site.log.at([position])
            assert event.stream == f"call-{call.id}"
            assert position > (transfer.dispatched_position or 0)


@pytest.mark.parametrize("shape", ["device", "device_message", "call", "user", "event"])
async def test_each_shape_of_an_error_is_understood(
    database_url: URL, simulator: Simulator, shape: Any
) -> None:
    async with open_site(database_url, simulator, PATIENT) as site:
        call = await site.seen_call()
        simulator.faults.add("error_notification", shape=shape)
        assert (await site.post(call.id)).json == {"statusCode": 0}
        transfer = await site.ended(call.id)
        assert transfer.state is State.FAILED
        assert transfer.outcome.grade == Grade.ERROR_NOTIFIED  # type: ignore[union-attr]
        assert site.executed(call.id) == 0


async def test_an_error_that_may_be_about_either_of_two_is_about_none(
    database_url: URL, simulator: Simulator
) -> None:
    async with open_site(database_url, simulator, settling=False) as site:
        calls = [await site.seen_call(), await site.seen_call("15000", "15003")]
        simulator.faults.add("silence", call=calls[0].id)
        simulator.faults.add("error_notification", call=calls[1].id, shape="device")
        for call in calls:
            await site.post(call.id)
        await site.told(is_error)
        site.settler.loop.start()
        for call in calls:
            transfer = await site.ended(call.id)
            assert transfer.outcome.grade == Grade.STILL_THERE  # type: ignore[union-attr]


async def test_without_any_notification_gws_is_asked(database_url: URL, simulator: Simulator) -> None:
    async with open_site(database_url, simulator, recording=False) as site:
        gone, there = site.call(), site.call(caller="15003")
        simulator.faults.add("silence", call=there.id)
        await site.post(gone.id)
        await site.post(there.id)
        first, second = await site.ended(gone.id), await site.ended(there.id)
        assert (first.state, first.outcome.grade) == (State.CONFIRMED, Grade.CALL_GONE)  # type: ignore[union-attr]
        assert (second.state, second.outcome.grade) == (State.FAILED, Grade.STILL_THERE)  # type: ignore[union-attr]


async def test_where_gws_cannot_be_asked_it_is_in_doubt_and_says_so(
    database_url: URL, simulator: Simulator
) -> None:
    async with open_site(database_url, simulator, recording=False) as site:
        call = site.call()
        simulator.faults.add("silence")
        await site.post(call.id)
        site.handler.dispatcher.agents = {}
        transfer = await site.ended(call.id, but=OPEN - {State.IN_DOUBT})
        assert transfer.outcome.cause == NOT_ASKED  # type: ignore[union-attr]


async def test_an_error_does_not_shorten_the_settle_window(database_url: URL, simulator: Simulator) -> None:
    async with open_site(database_url, simulator, PATIENT, settling=False) as site:
        call = await site.seen_call()
        simulator.faults.add("error_notification", shape="device")
        await site.post(call.id)
        await site.told(is_error)
        site.handler.dispatcher.agents = {}
        await site.settler.look(-1)
        assert await site.database.pool.fetchval(work.NEXT_DUE) > 10.0


async def test_a_call_that_comes_back_contradicts_and_nothing_is_rewritten(site: Site) -> None:
    call = await site.seen_call()
    site.simulator.faults.add("recall", seconds=600.0)
    await site.post(call.id)
    assert (await site.ended(call.id)).state is State.CONFIRMED
    [executed] = site.simulator.truth.transfers_of(call.id)
    site.simulator.recall_later(call, executed, 0.0)
    transfer = await site.ended(call.id, but=OPEN | {State.CONFIRMED})
    assert transfer.state is State.CONTRADICTED
    assert (await site.kinds(call.id))[-2:] == ["TransferConfirmed", "TransferContradicted"]
    assert site.executed(call.id) == 1


async def test_a_hang_up_in_doubt_is_not_taken_for_a_transfer(
    database_url: URL, simulator: Simulator
) -> None:
    async with open_site(database_url, simulator, settling=False) as site:
        doubted = await site.hung_up_in_doubt()
        assert doubted.state is State.IN_DOUBT
        call_id = doubted.request.call_id
        assert site.executed(call_id) == 0
        found = Finding(False, "a person's decision", (), "WillardC", "the caller hung up")
        settled = await site.handler.settle(doubted.id, Settle(doubted.id, found))
        assert settled.transfer.state is State.FAILED
        assert settled.transfer.outcome.settled_by == "WillardC"  # type: ignore[union-attr]
        with pytest.raises(TransferSettled):
            await site.handler.settle(doubted.id, Abandon(doubted.id, "WillardC", "again"))


@pytest.mark.parametrize("fault", ["duplicate_notification", "reorder_notification", "lose_notification"])
async def test_notifications_that_are_doubled_reordered_or_lost(site: Site, fault: Any) -> None:
    call = await site.seen_call()
    site.simulator.faults.add(fault, times=None, probability=0.5)
    await site.post(call.id)
    transfer = await site.ended(call.id)
    assert transfer.state is State.CONFIRMED
    assert site.executed(call.id) == 1


async def test_200_calls_at_once_all_end_well(database_url: URL, simulator: Simulator) -> None:
    patient = replace(QUICK, answer_s=60.0, wait_s=60.0, lease_s=60.0, settle_s=5.0, patience_s=60.0)
    async with open_site(database_url, simulator, patient) as site:
        calls = [site.call("15000", "15003") for _ in range(200)]
        await asyncio.gather(*(site.post(call.id) for call in calls))
        for call in calls:
            assert (await site.ended(call.id)).state is State.CONFIRMED
            assert (await site.kinds(call.id)).count("TransferDispatched") == 1
            assert site.executed(call.id) == 1
