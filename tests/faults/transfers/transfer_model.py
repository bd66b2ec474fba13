"""A small model of transfers: what must become of each, and what is shared by all schedules."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from crashing_process import (
    ANSWERED,
    CONNECTED,
    REACHES_GWS,
    SENT,
    UNSENT,
    CrashingClient,
    CrashingJournal,
    Plan,
)
from sqlalchemy.engine import URL

from service.cometd import Cookies, shared_http
from service.log import EventLog, open_log
from service.postgres import Database, open_pools
from service.simulator import Simulator
from service.transfers import (
    Outcome,
    State,
    Timing,
    Transfer,
    TransferCommand,
    TransferHandler,
)
from service.transfers.dispatcher import Dispatcher

AGENT = "15000"
DESTINATIONS = tuple(str(15002 + number) for number in range(6))
EXPIRE = "UPDATE transfer_work SET due_at = now() - interval '1 hour'"
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

    def sent(self, plan: Plan) -> None:
        """It was its turn, under the plan."""
        self.claim_over = False
        if plan.crash == UNSENT:
            self.phase = "unanswered"
            return
        self.attempts += 1
        if not plan.reachable:
            self.phase = "waiting" if self.attempts < TIMING.attempts else "answered"
            return
        self.arrivals += plan.crash in REACHES_GWS
        self.phase = "unanswered" if plan.crash in {CONNECTED, SENT, ANSWERED} else "answered"

    def learn(self, outcome: Outcome) -> None:
        """Take what its caller was told, which must be the same each time."""
        transfer = outcome.transfer
        self.transfer_id = transfer.id
        if transfer.answer is not None and transfer.state is not State.IN_DOUBT:
            answer = (transfer.answer.http_status, transfer.answer.body)
            assert self.told in {None, answer}, "another answer than the first time"
            self.told = answer

    def check(self, transfer: Transfer, executed: int) -> None:
        """What is on record must be true."""
        told = f"{transfer.state}, {transfer.outcome}, executed {executed}"
        if self.phase == "waiting":
            assert transfer.state is State.REQUESTED, told
        if self.phase == "unanswered":
            assert transfer.state is State.DISPATCHED, told
        if self.phase == "answered":
            assert transfer.state not in {State.REQUESTED, State.DISPATCHED}, told
        if self.by_person or transfer.state is State.CONTRADICTED:
            return
        if transfer.state is State.CONFIRMED:
            assert executed == 1, told
        if transfer.state in {State.FAILED, State.REJECTED}:
            assert executed == 0, told


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

    def expected(self, transfer: Transfer) -> Expected:
        return next(one for one in self.transfers if one.command.destination == transfer.request.destination)


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


async def check_work(database: Database, call: ModelCall, transfers: list[Transfer]) -> None:
    """The queue is a projection of the log."""
    rows = await database.pool.fetch(
        "SELECT transfer_id, state FROM transfer_work WHERE call_id = $1", call.call_id
    )
    work = {row["transfer_id"]: row["state"] for row in rows}
    for transfer in transfers:
        watched = transfer.state in {State.CONFIRMED, State.FAILED} and transfer.id in work
        assert transfer.is_live <= (transfer.id in work)
        if transfer.is_live or watched:
            assert work.pop(transfer.id) == transfer.state
    assert not work


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
