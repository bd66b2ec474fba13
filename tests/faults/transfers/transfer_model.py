"""The model of transfers: what must have reached GWS, and what may be on record of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

from crashing_process import DEADLINE_S, CrashingClient, CrashingJournal, Plan, arrived
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant
from sqlalchemy.engine import URL

from service.cometd import Cookies, shared_http
from service.log import EventLog, Producer, open_log
from service.postgres import Database, open_pools
from service.simulator import Simulator
from service.transfers import Outcome, Settler, State, Timing, Transfer, TransferCommand, TransferHandler
from service.transfers.dispatcher import Dispatcher

AGENT = "15000"
CALLS = 2
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


class Modelled(RuleBasedStateMachine):
    """A process and its successors, and what must be so after each step: all is as the model says."""

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

    def restart(self) -> None:
        """The process is gone, another takes its place; a stopped one may wake up yet."""
        plan = Plan()
        CrashingClient.plan = CrashingJournal.plan = self.plan = plan
        self.handler = self.world.process()
        self.settler = Settler(self.handler)
        self.seen = self.first

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
