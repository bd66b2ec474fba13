"""The steps of a schedule in which transfers are asked for and sent, and what becomes of the process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crashing_process import (
    ANSWERED,
    BEFORE,
    CONNECTED,
    DURABLE,
    NEVER,
    REACHES_GWS,
    SENT,
    SETTLING,
    UNSENT,
    Crash,
)
from hypothesis import strategies as st
from hypothesis.stateful import rule
from transfer_model import AGENT, CALLS, TIMING, Expected, ModelCall
from transfer_settling import EXPIRE, Settling

from service.errors import CallBusy, KeyBusy, KeyReused
from service.transfers import (
    Abandon,
    Outcome,
    State,
    TransferHandler,
    build_body,
    parse_command,
)
from service.transfers.decider import FINAL, CallTransfers

DESTINATIONS = tuple(str(15002 + number) for number in range(6))
ITSELF, ANOTHER = "itself", "another process"
SLOW = (None, ITSELF, ANOTHER)
CRASHES = st.sampled_from((NEVER, NEVER, NEVER, BEFORE, UNSENT, CONNECTED, SENT, ANSWERED, DURABLE))
Behaviour = tuple[str, dict[str, Any]] | None
BEHAVIOURS: tuple[Behaviour, ...] = (
    None,
    None,
    ("late_answer", {"seconds": 0.01}),
    ("drop_before_execution", {}),
    ("drop_after_execution", {}),
    *(
        (kind, {"executed": done})
        for kind in ("http_500", "http_502", "no_status_code")
        for done in (True, False)
    ),
    ("silence", {}),
    *(("error_notification", {"shape": shape}) for shape in ("device", "call", "event")),
    ("notification_first", {"seconds": 0.0}),
    ("recall", {"seconds": 0.0}),
    ("reject", {"status_code": 2}),
)


class Schedule(Settling):
    """One schedule, on calls of its own."""

    @rule(
        which=st.integers(0, CALLS - 1),
        behaviour=st.sampled_from(BEHAVIOURS),
        crash=CRASHES,
        reachable=st.sampled_from((True, True, True, False)),
        stops=st.booleans(),
        queued=st.booleans(),
        keyed=st.sampled_from((True, True, False)),
        with_data=st.booleans(),
    )
    def request(
        self,
        *,
        which: int,
        behaviour: Behaviour,
        crash: str,
        reachable: bool,
        stops: bool,
        queued: bool,
        keyed: bool,
        with_data: bool,
    ) -> None:
        """A command comes; with it what GWS will do, and what becomes of the process."""
        call = self.calls[which]
        number = len(call.transfers)
        if number == len(DESTINATIONS):
            return
        command = parse_command(
            call.call_id,
            build_body(DESTINATIONS[number], None, {"Reason": f"r{number}"} if with_data else None),
            agent=AGENT,
            caller=AGENT,
            door="gws",
            key=f"{call.call_id}-{number}" if keyed else None,
        )
        self.plan.crash, self.plan.reachable = crash, reachable
        self.plan.stall = asyncio.Event() if stops and crash == NEVER and reachable else None
        if behaviour is not None and not self._harmed(call):
            kind, given = behaviour
            self.world.simulator.faults.add(kind, call=call.call_id, **given)  # type: ignore[arg-type]
        self.run(self._request(call, Expected(command), queued=queued))
        if crash != NEVER:
            self.restart()

    def _harmed(self, call: ModelCall) -> bool:
        return any(one.call == call.call_id and not one.struck for one in self.world.simulator.faults.waiting)

    async def _request(self, call: ModelCall, new: Expected, *, queued: bool) -> None:
        command, plan = new.command, self.plan
        busy = command.key is None and any(
            transfer.is_live and not transfer.request.keyed for transfer in await self._transfers(call)
        )
        sends = call.is_free() and not queued
        task = asyncio.create_task(self.handler.transfer(command, wait_s=0.0 if queued else None))
        if plan.stall is not None and sends and not busy:
            await plan.stalled.wait()
            new.stall, new.task, new.phase = plan.stall, task, "unanswered"
            call.transfers.append(new)
            plan.stall, plan.stalled = None, asyncio.Event()
            self.world.tally["stopped before the last check"] += 1
            return
        plan.stall = None
        try:
            outcome = await task
        except CallBusy:
            assert busy, "refused although no other is live"
            return
        except Crash as crash:
            self.world.tally[f"crash {crash}"] += 1
            if str(crash) == BEFORE:
                return
        else:
            self._told(new, outcome)
        assert not busy or plan.crash == BEFORE, "a second live transfer without a key"
        call.transfers.append(new)
        if sends:
            self._sent(new)

    def _sent(self, one: Expected) -> None:
        """What the model says of a transfer whose turn it was, under the plan."""
        plan = self.plan
        one.claim_over = False
        if plan.crash == UNSENT:
            one.phase = "unanswered"
            return
        one.attempts += 1
        if not plan.reachable:
            one.phase = "waiting" if one.attempts < TIMING.attempts else "answered"
            return
        one.arrivals += plan.crash in REACHES_GWS
        one.phase = "unanswered" if plan.crash in {CONNECTED, SENT, ANSWERED} else "answered"

    def _told(self, one: Expected, outcome: Outcome) -> None:
        transfer = outcome.transfer
        one.transfer_id = transfer.id
        if transfer.answer is not None and transfer.state is not State.IN_DOUBT:
            answer = (transfer.answer.http_status, transfer.answer.body)
            assert one.told in {None, answer}, "another answer than the first time"
            one.told = answer

    @rule(which=st.integers(0, CALLS * len(DESTINATIONS)))
    def repeat(self, which: int) -> None:
        """The same request with the same key, and another one with it."""
        known = [(call, one) for call in self.calls for one in call.transfers if one.command.key is not None]
        if known:
            self.run(self._repeat(*known[which % len(known)]))

    async def _repeat(self, call: ModelCall, one: Expected) -> None:
        command = one.command
        other = parse_command(
            call.call_id,
            build_body("19999", None, None),
            agent=AGENT,
            caller=AGENT,
            door="gws",
            key=command.key,
        )
        with pytest.raises(KeyReused):
            await self.handler.transfer(other)
        try:
            outcome = await self.handler.transfer(command)
        except KeyBusy:
            assert one.phase != "answered"
            return
        assert outcome.replayed
        assert one.transfer_id in {None, outcome.transfer.id}
        self._told(one, outcome)
        self.world.tally["replayed"] += 1

    @rule(crash=CRASHES, reachable=st.sampled_from((True, True, False)), slow=st.sampled_from(SLOW))
    def queue(self, *, crash: str, reachable: bool, slow: str | None) -> None:
        """The queue works off what is due; perhaps somebody claimed it before and was slow."""
        self.plan.crash, self.plan.reachable = crash, reachable
        self.run(self._queue(slow if reachable else None))
        if self.plan.crash != NEVER:
            self.restart()

    async def _queue(self, slow: str | None = None) -> None:
        turns = [turn for call in self.calls if (turn := call.next_waiting()) is not None]
        plan, late = self.plan, []
        if slow is not None:
            first = self.handler if slow == ITSELF else self.world.process()
            plan.slow, plan.go_on = first.journal.owner, asyncio.Event()
            late = await self._take_up(first, turns)
            self.world.tally[f"slow: {slow}"] += len(late)
        tasks = await self._take_up(self.handler, turns)
        if slow == ITSELF:
            plan.go_on.set()
        else:
            plan.late = late  # they go on when the others have dispatched and not yet sent
        await asyncio.gather(*tasks, return_exceptions=True)
        await plan.let_late_ones_end()
        for task in tasks + late:
            if (crash := task.exception()) is not None:
                assert isinstance(crash, Crash), crash
                self.world.tally[f"crash {crash}"] += 1
        for turn in turns:
            if self.plan.crash != BEFORE:
                self._sent(turn)
            self.world.tally["sent from the queue"] += 1

    async def _take_up(
        self, process: TransferHandler, turns: list[Expected]
    ) -> list[asyncio.Task[CallTransfers]]:
        """Let a process claim what waits; pauses, and the claims of those who did not go on, are over."""
        await self.world.database.pool.execute(f"{EXPIRE} WHERE state = 'requested'")
        tasks = await process.dispatcher.take_up(64)
        taken, first = {task.get_name() for task in tasks}, {f"transfer {turn.transfer_id}" for turn in turns}
        assert taken == first, "the queue takes the first of each call, one at a time"
        return tasks

    @rule()
    def wake_up(self) -> None:
        """Those who were stopped before the last check go on."""
        self.plan.crash, self.plan.reachable, self.plan.stall = NEVER, True, None
        self.run(self._wake_up())

    async def _wake_up(self) -> None:
        for one in [one for call in self.calls for one in call.transfers if one.stall is not None]:
            assert one.stall is not None
            assert one.task is not None
            one.stall.set()
            one.stall = None
            outcome = await one.task
            if one.phase == "answered":
                self.world.tally["woken up after it was taken over"] += 1
            elif one.claim_over:
                one.claim_over = False
                one.attempts += 1
                one.phase = "waiting" if one.attempts < TIMING.attempts else "answered"
            else:
                one.attempts += 1
                one.arrivals += 1
                one.phase = "answered"
                self._told(one, outcome)

    def teardown(self) -> None:
        """Everything comes to its end: nothing hangs, and what is in doubt says why."""
        self.wake_up()
        while any(one.phase != "answered" for call in self.calls for one in call.transfers):
            self.time_passes()
            self.settle()
            self.plan.crash, self.plan.reachable = NEVER, True
            self.run(self._queue())
        self.notify_all()
        for crash in (SETTLING, NEVER):
            self.settle(crash)
            self.time_passes()
        self.settle()
        self.record_fits()
        for call in self.calls:
            self.run(self._check_end(call))

    async def _check_end(self, call: ModelCall) -> None:
        for transfer in await self._transfers(call):
            self.world.tally[transfer.state] += 1
            if transfer.state is State.IN_DOUBT:
                assert transfer.outcome is not None
                assert transfer.outcome.cause  # type: ignore[attr-defined]
                await self.handler.settle(transfer.id, Abandon(transfer.id, "WillardC", "the end"))
            else:
                assert transfer.state in FINAL
