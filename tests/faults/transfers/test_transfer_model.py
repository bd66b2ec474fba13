"""Handler, queue and settler against a small model, with faults between and within the steps.

Hypothesis makes the schedules. Nothing runs by itself: each rule is one step (a request, a turn of the queue,
a round of the settler, a notification that arrives, time that passes), on a real Postgres and beside a
simulated GWS. A step ends when what it brings about is a fact, and no lease, window or time-out ends but by
the step in which time passes, so that a machine's load changes nothing. The model knows when a request must
reach GWS, and predicts it exactly; what GWS then did, the simulator knows; and what is on record must fit
both after every step.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy.engine import URL

from service.cometd import Cookies, shared_http
from service.errors import CallBusy, KeyBusy, KeyReused
from service.events import NotificationReceived, encode, stream_of_notification
from service.gws import Answer, GwsClient
from service.log import EventLog, NewEvent, Producer, open_log
from service.postgres import Database, open_pools
from service.simulator import Simulator
from service.transfers import (
    Abandon,
    Finding,
    Outcome,
    Settle,
    Settler,
    State,
    Timing,
    Transfer,
    TransferCommand,
    TransferHandler,
    build_body,
    parse_command,
)
from service.transfers.decider import (
    FINAL,
    CallTransfers,
    Command,
    Dispatch,
    Request,
    TakeAnswer,
)
from service.transfers.dispatcher import Dispatcher
from service.transfers.journal import Extra, Journal

AGENT = "15000"
DESTINATIONS = tuple(str(15002 + number) for number in range(6))
LENGTH = 24  # steps of a schedule at most
CALLS = 2
NOBODY = "http://127.0.0.1:9"
EXPIRE = "UPDATE transfer_work SET due_at = now() - interval '1 hour'"
ITSELF, ANOTHER = "itself", "another process"
SLOW = (None, None, ITSELF, ANOTHER)
HOUR_S = 3_600.0  # does not pass by itself
TIMING = Timing(
    answer_s=HOUR_S,
    settle_s=HOUR_S,
    wait_s=0.02,
    lease_s=HOUR_S,
    attempts=3,
    first_pause_s=HOUR_S,
    patience_s=HOUR_S,
    watch_s=HOUR_S,
)
DEADLINE_S = 60.0  # of one step

NEVER, BEFORE, UNSENT, CONNECTED, SENT, ANSWERED, DURABLE = (
    "no crash",
    "before the intent is durable",
    "after the intent",
    "connected, before the first byte",
    "after the last byte",
    "after the answer",
    "after the answer is durable",
)
SETTLING = "while settling"
CRASHES = st.sampled_from((NEVER, NEVER, NEVER, BEFORE, UNSENT, CONNECTED, SENT, ANSWERED, DURABLE))
REACHES_GWS = frozenset({NEVER, SENT, ANSWERED, DURABLE})
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


class Crash(Exception):
    """The process ends here."""


class Plan:
    """Where the process crashes, whether GWS can be reached, and who is stopped before which step.

    `stall` stops before the last check; `slow` are processes (by owner) that stop before they dispatch.
    """

    def __init__(self) -> None:
        self.crash = NEVER
        self.reachable = True
        self.stall: asyncio.Event | None = None
        self.stalled = asyncio.Event()
        self.slow: dict[UUID, asyncio.Event] = {}

    def at(self, point: str) -> None:
        if self.crash == point:
            raise Crash(point)


class CrashingJournal(Journal):
    plan: ClassVar[Plan]

    async def apply(self, state: CallTransfers, command: Command, *extras: Extra) -> CallTransfers:
        sends = isinstance(command, Request | Dispatch)
        if isinstance(command, Dispatch) and self.owner in self.plan.slow:
            await self.plan.slow[self.owner].wait()
        if sends:
            self.plan.at(BEFORE)
        if isinstance(command, Settle):
            self.plan.at(SETTLING)
        after = await super().apply(state, command, *extras)
        if sends:
            self.plan.at(UNSENT)
        if isinstance(command, TakeAnswer):
            self.plan.at(DURABLE)
        return after


class CrashingClient(GwsClient):
    simulator: Simulator
    plan: ClassVar[Plan]

    async def command_call(
        self, call_id: str, body: bytes, *, may_send: Callable[[], Awaitable[bool]]
    ) -> Answer:
        plan, stall = self.plan, self.plan.stall
        crash = plan.crash

        async def check() -> bool:
            if stall is not None:
                plan.stalled.set()
                await stall.wait()
            return await may_send() and crash != CONNECTED

        self.base_url = self.simulator.url if plan.reachable else NOBODY
        sending = asyncio.ensure_future(super().command_call(call_id, body, may_send=check))
        if crash == SENT and plan.reachable:
            await self.simulator.until(
                lambda: sending.done() or arrived(self.simulator, call_id, body), within_s=DEADLINE_S
            )
            sending.cancel()
        answer = (await asyncio.gather(sending, return_exceptions=True))[0]
        if crash in {CONNECTED, SENT, ANSWERED} and plan.reachable:
            raise Crash(crash)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def arrived(simulator: Simulator, call_id: str, body: bytes) -> int:
    return sum(one.call_id == call_id and one.body == body for one in simulator.truth.commands)


@dataclass(eq=False)
class Expected:
    """One transfer in the model. `phase` is waiting, unanswered or answered."""

    command: TransferCommand
    transfer_id: UUID | None = None
    phase: str = "waiting"
    attempts: int = 0
    arrivals: int = 0
    claim_over: bool = False
    told: tuple[int, bytes] | None = None
    by_person: bool = False
    stall: asyncio.Event | None = None
    task: asyncio.Task[Outcome] | None = None


@dataclass(eq=False)
class ModelCall:
    call_id: str
    transfers: list[Expected] = field(default_factory=list)

    def is_free(self) -> bool:
        return all(one.phase == "answered" for one in self.transfers)

    def next_waiting(self) -> Expected | None:
        if any(one.phase == "unanswered" for one in self.transfers):
            return None
        return next((one for one in self.transfers if one.phase == "waiting"), None)


@dataclass
class World:
    """What all schedules share: a database, a log, a simulated GWS, and what was counted."""

    simulator: Simulator
    database: Database
    log: EventLog
    client: CrashingClient
    tally: Counter[str] = field(default_factory=Counter)

    def process(self) -> TransferHandler:
        """A process of its own: its owner's token is new, and it knows only what is durable."""
        handler = TransferHandler(self.database, self.log, {AGENT: self.client}, TIMING)
        handler.journal = CrashingJournal(self.database, self.log, TIMING)
        handler.dispatcher = Dispatcher(handler.journal, handler.agents)
        return handler


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
        tasks = []
        if slow is not None:
            first = self.handler if slow == ITSELF else self.world.process()
            gate = self.plan.slow[first.journal.owner] = asyncio.Event()
            tasks += await self._take_up(first, turns)
            self.world.tally[f"slow: {slow}"] += len(tasks)
        tasks += await self._take_up(self.handler, turns)
        if slow is not None:
            gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
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
                transfer.state is State.DISPATCHED and self._expected(call, transfer).claim_over
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
                    self._expected(call, transfer).by_person = True
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
            one = self._expected(call, transfer)
            assert one.transfer_id in {None, transfer.id}
            one.transfer_id = transfer.id
            assert arrived(simulator, call.call_id, one.command.body) == one.arrivals <= 1
            executed = sum(
                done.destination == one.command.destination
                for done in simulator.truth.transfers_of(call.call_id)
            )
            assert executed <= one.arrivals
            self._check_outcome(transfer, one, executed)
        await self._check_work(call, transfers)

    def _check_outcome(self, transfer: Transfer, one: Expected, executed: int) -> None:
        told = f"{transfer.state}, {transfer.outcome}, executed {executed}"
        if one.phase == "waiting":
            assert transfer.state is State.REQUESTED, told
        if one.phase == "unanswered":
            assert transfer.state is State.DISPATCHED, told
        if one.phase == "answered":
            assert transfer.state not in {State.REQUESTED, State.DISPATCHED}, told
        if one.by_person or transfer.state is State.CONTRADICTED:
            return
        if transfer.state is State.CONFIRMED:
            assert executed == 1, told
        if transfer.state in {State.FAILED, State.REJECTED}:
            assert executed == 0, told

    async def _check_work(self, call: ModelCall, transfers: list[Transfer]) -> None:
        """The queue is a projection of the log."""
        rows = await self.world.database.pool.fetch(
            "SELECT transfer_id, state FROM transfer_work WHERE call_id = $1", call.call_id
        )
        work = {row["transfer_id"]: row["state"] for row in rows}
        for transfer in transfers:
            watched = transfer.state in {State.CONFIRMED, State.FAILED} and transfer.id in work
            assert transfer.is_live <= (transfer.id in work)
            if transfer.is_live or watched:
                assert work.pop(transfer.id) == transfer.state
        assert not work

    def _expected(self, call: ModelCall, transfer: Transfer) -> Expected:
        return next(one for one in call.transfers if one.command.destination == transfer.request.destination)

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


@asynccontextmanager
async def world(url: URL) -> AsyncIterator[World]:
    async with (
        Simulator(seed=1, agent_count=10, answer_after_s=None) as simulator,
        open_pools(url) as database,
        open_log(database, max_payload_bytes=1 << 20) as log,
        shared_http() as http,
    ):
        client = CrashingClient(
            http, simulator.url, AGENT, f"secret-{AGENT}", cookies=Cookies(), timeout_s=TIMING.answer_s
        )
        client.simulator = simulator
        yield World(simulator, database, log, client)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("schedules", "number"), [(30, 1), pytest.param(1_000, 2, marks=pytest.mark.long)])
def test_whatever_happens_the_record_is_true(database_url: URL, schedules: int, number: int) -> None:
    with asyncio.Runner() as runner:
        opened = world(database_url)
        Schedule.world, Schedule.runner = runner.run(opened.__aenter__()), runner
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                seed(number)(Schedule),
                settings=settings(
                    max_examples=schedules,
                    stateful_step_count=LENGTH,
                    deadline=None,
                    database=None,
                    phases=(Phase.generate, Phase.shrink),
                    suppress_health_check=list(HealthCheck),
                ),
                _min_steps=LENGTH // 2,
            )
        finally:
            tally = Schedule.world.tally
            runner.run(opened.__aexit__(None, None, None))
    print(f"\n{schedules} schedules: {dict(sorted(tally.items()))}")  # noqa: T201 the counts are the result
    for crash in (BEFORE, UNSENT, CONNECTED, SENT, ANSWERED, DURABLE, SETTLING):
        assert tally[f"crash {crash}"] >= schedules // 60, crash
    assert sum(tally[state] for state in State) >= schedules
