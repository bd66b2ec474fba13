"""A claim that runs out before its transfer is dispatched: others claim it, and still it is sent once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy.engine import URL
from transfer_site import QUICK, Site, open_site

from service.simulator import Call, Simulator
from service.transfers.decider import CallTransfers, Command
from service.transfers.dispatcher import Dispatcher
from service.transfers.journal import Extra, Journal

PATIENT = replace(QUICK, answer_s=60.0, lease_s=60.0, settle_s=60.0)
DEADLINE_S = 30.0


class SlowJournal(Journal):
    """Its process has claimed a transfer and goes no further than to a step until it is told to."""

    step: str
    reached: asyncio.Event
    go_on: asyncio.Event

    async def load(self, call_id: str) -> CallTransfers:
        await self._pass("before it reads")
        return await super().load(call_id)

    async def apply(self, state: CallTransfers, command: Command, *extras: Extra) -> CallTransfers:
        await self._pass("before it writes")
        return await super().apply(state, command, *extras)

    async def _pass(self, step: str) -> None:
        if step == self.step:
            self.reached.set()
            await self.go_on.wait()


def slow_process(site: Site, step: str) -> tuple[Dispatcher, type[SlowJournal]]:
    class Slow(SlowJournal):
        reached, go_on = asyncio.Event(), asyncio.Event()

    Slow.step = step
    return Dispatcher(Slow(site.database, site.log, PATIENT), site.handler.agents), Slow


@pytest.fixture
async def site(database_url: URL, simulator: Simulator) -> AsyncIterator[Site]:
    """Nothing runs by itself, and time passes only when a test says so."""
    async with open_site(
        database_url, simulator, PATIENT, recording=False, settling=False, queueing=False
    ) as opened:
        yield opened


async def claim(dispatcher: Dispatcher) -> asyncio.Task[CallTransfers]:
    [task] = await dispatcher.take_up(1)
    return task


async def claims_run_out(site: Site) -> None:
    await site.database.pool.execute("UPDATE transfer_work SET due_at = now() - interval '1 hour'")


@pytest.mark.parametrize("step", ["before it reads", "before it writes"])
async def test_who_comes_too_late_sends_nothing_and_says_nothing(site: Site, step: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        call = site.call()
        site.simulator.faults.add("late_answer", seconds=0.3)
        await site.command(call.id, prefer="respond-async", key="k")
        dispatcher, slow = slow_process(site, step)
        late = await claim(dispatcher)
        await slow.reached.wait()
        await claims_run_out(site)
        sending = await claim(site.handler.dispatcher)
        await site.simulator.until(lambda: site.simulator.truth.commands)
        slow.go_on.set()
        await late
        assert await site.handler.dispatcher.take_up(1) == []
        await sending
        await sent_once(site, call)


@pytest.mark.parametrize("step", ["before it reads", "before it writes"])
async def test_a_process_that_claims_again_what_it_has_in_hand_sends_it_once(site: Site, step: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        call = site.call()
        await site.command(call.id, prefer="respond-async", key="k")
        dispatcher, slow = slow_process(site, step)
        first = await claim(dispatcher)
        await slow.reached.wait()
        await claims_run_out(site)
        again = await claim(dispatcher)
        slow.go_on.set()
        await asyncio.gather(first, again)
        await sent_once(site, call)


async def sent_once(site: Site, call: Call) -> None:
    assert await site.kinds(call.id) == ["TransferRequested", "TransferDispatched", "TransferAccepted"]
    assert len(site.simulator.truth.commands) == site.executed(call.id) == 1
