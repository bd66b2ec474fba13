"""Schedules of transfers: the steps, with faults between and within them, and what holds after each."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

import pytest
from crashing_process import (
    ANSWERED,
    BEFORE,
    CONNECTED,
    DEADLINE_S,
    DURABLE,
    NEVER,
    SENT,
    SETTLING,
    UNSENT,
    Crash,
    CrashingClient,
    CrashingJournal,
    Plan,
    arrived,
)
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from transfer_model import AGENT, DESTINATIONS, EXPIRE, TIMING, Expected, ModelCall, World, check_work

from service.errors import CallBusy, KeyBusy, KeyReused
from service.events import NotificationReceived, encode, stream_of_notification
from service.log import NewEvent, Producer
from service.transfers import (
    Abandon,
    Finding,
    Settle,
    Settler,
    State,
    Transfer,
    TransferHandler,
    build_body,
    parse_command,
)
from service.transfers.decider import (
    FINAL,
    CallTransfers,
)

CALLS = 2
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


class Schedule(RuleBasedStateMachine):
    """One schedule, on calls of its own."""

    world: ClassVar[World]
    runner: ClassVar[asyncio.Runner]

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(asyncio.wait_for(step, DEADLINE_S))

    @initialize()
    def begin(self) -> None:
        self.world.simulator.truth.commands.clear()
        self.world.simulator.truth.published.clear()
        self.world.simulator.faults.clear()
        self.calls: list[ModelCall] = []
        self.delivered = 0
        self.session = Producer.new().key
        self.seen = self.run(self.world.log.next_position()) - 1
        self.first = self.seen
        self.run(self.world.database.pool.execute("DELETE FROM transfer_work"))  # what a failed one left
        self.restart()
        self.run(self._place_calls())

    async def _place_calls(self) -> None:
        for _ in range(CALLS):
            call = self.world.simulator.place_call("0301234567", AGENT)
            self.world.simulator.answer(call.id, AGENT)
            self.calls.append(ModelCall(call.id))

    # Steps

    def restart(self) -> None:
        """The process is gone, another takes its place; a stopped one may wake up yet."""
        plan = Plan()
        CrashingClient.plan = CrashingJournal.plan = self.plan = plan
        self.handler = self.world.process()
        self.settler = Settler(self.handler)
        self.seen = self.first

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
            new.learn(outcome)
        assert not busy or plan.crash == BEFORE, "a second live transfer without a key"
        call.transfers.append(new)
        if sends:
            new.sent(self.plan)

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
        one.learn(outcome)
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
                turn.sent(self.plan)
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
                one.learn(outcome)

    @rule()
    def time_passes(self) -> None:
        """Claims and settle windows are over."""
        for call in self.calls:
            self.run(self._expire(call.call_id))
            for one in call.transfers:
                one.claim_over = one.phase == "unanswered"

    async def _expire(self, call_id: str) -> None:
        await self.world.database.pool.execute(f"{EXPIRE} WHERE call_id = $1", call_id)

    @rule(crash=st.sampled_from((NEVER, NEVER, SETTLING)))
    def settle(self, crash: str = NEVER) -> None:
        """The settler makes its rounds, perhaps its successor goes on; a claim that is over is taken over."""
        self.plan.crash = crash
        try:
            self.run(self._settle())
        except Crash:
            self.world.tally[f"crash {SETTLING}"] += 1
            self.restart()
            self.run(self._settle())
        self.plan.crash = NEVER
        for one in (one for call in self.calls for one in call.transfers if one.claim_over):
            one.phase, one.claim_over = "answered", False
            self.world.tally["taken over"] += 1

    async def _settle(self) -> None:
        """Rounds until all is taken over: of two of a call that move at once one waits for the next round."""
        left = True
        while left:
            self.seen = await self.settler.look(self.seen)
            transfers = [(call, one) for call in self.calls for one in await self._transfers(call)]
            left = any(
                transfer.state is State.DISPATCHED and call.expected(transfer).claim_over
                for call, transfer in transfers
            )

    @rule(which=st.integers(0, 30), times=st.sampled_from((1, 1, 1, 0, 2)))
    def notify(self, which: int, times: int) -> None:
        """A notification arrives, late, twice, out of turn, or never."""
        published = self.world.simulator.truth.published
        if published:
            self.run(self._deliver(which % len(published), times))

    @rule()
    def notify_all(self) -> None:
        while self.world.simulator.truth.published:
            self.run(self._deliver(0, 1))

    async def _deliver(self, place: int, times: int) -> None:
        message = self.world.simulator.truth.published.pop(place)
        for _ in range(times):
            event = NotificationReceived(
                session=self.session, agent=message.agent, count=self.delivered, channel=message.channel
            )
            new = NewEvent(
                Producer(self.session).event_id(self.delivered),
                stream_of_notification(message.body, self.session),
                event.kind(),
                encode(event, message.body),
            )
            await self.world.log.append([new])
            self.delivered += 1

    @rule(happened=st.sampled_from((True, False, None)))
    def person(self, *, happened: bool | None) -> None:
        """A person settles one that is in doubt, rightly or wrongly, or gives it up."""
        self.run(self._person(happened=happened))

    async def _person(self, *, happened: bool | None) -> None:
        for call in self.calls:
            for transfer in await self._transfers(call):
                if transfer.state is State.IN_DOUBT:
                    decision = (
                        Abandon(transfer.id, "WillardC", "nobody knows")
                        if happened is None
                        else Settle(transfer.id, Finding(happened, "word", (), "WillardC", "asked"))
                    )
                    await self.handler.settle(transfer.id, decision)
                    call.expected(transfer).by_person = True
                    self.world.tally["settled by a person"] += 1
                    return

    # What must be so

    @invariant()
    def record_fits(self) -> None:
        for call in self.calls:
            self.run(self._check(call))

    async def _check(self, call: ModelCall) -> None:
        simulator = self.world.simulator
        transfers = await self._transfers(call)
        assert len(transfers) == len(call.transfers)
        for transfer in transfers:
            one = call.expected(transfer)
            assert one.transfer_id in {None, transfer.id}
            one.transfer_id = transfer.id
            assert arrived(simulator, call.call_id, one.command.body) == one.arrivals <= 1
            executed = sum(
                done.destination == one.command.destination
                for done in simulator.truth.transfers_of(call.call_id)
            )
            assert executed <= one.arrivals
            one.check(transfer, executed)
        await check_work(self.world.database, call, transfers)

    async def _transfers(self, call: ModelCall) -> list[Transfer]:
        return list((await self.handler.journal.load(call.call_id)).transfers.values())

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
