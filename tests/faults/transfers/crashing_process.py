"""A process that crashes where a plan says: its journal, and its client of the simulated GWS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar
from uuid import UUID

from service.gws import Answer, GwsClient
from service.simulator import Simulator
from service.transfers import Settle
from service.transfers.decider import CallTransfers, Command, Dispatch, Request, TakeAnswer
from service.transfers.journal import Extra, Journal

NOBODY = "http://127.0.0.1:9"
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
"""Where a process may crash; the settler's may while it settles."""
REACHES_GWS = frozenset({NEVER, SENT, ANSWERED, DURABLE})


class Crash(Exception):
    """The process ends here."""


class Plan:
    """Where the process crashes, whether GWS can be reached, and who is stopped before which step.

    `stall` stops before the last check. `slow` is the owner of claims that stops before it dispatches them;
    its tasks are `late`.
    """

    def __init__(self) -> None:
        self.crash = NEVER
        self.reachable = True
        self.stall: asyncio.Event | None = None
        self.stalled = asyncio.Event()
        self.slow: UUID | None = None
        self.go_on = asyncio.Event()
        self.late: list[asyncio.Task[CallTransfers]] = []

    async def let_late_ones_end(self) -> None:
        late, self.late = self.late, []
        self.go_on.set()
        if late:
            await asyncio.wait(late)

    def at(self, point: str) -> None:
        if self.crash == point:
            raise Crash(point)


class CrashingJournal(Journal):
    plan: ClassVar[Plan]

    async def apply(self, state: CallTransfers, command: Command, *extras: Extra) -> CallTransfers:
        sends = isinstance(command, Request | Dispatch)
        if isinstance(command, Dispatch) and self.owner == self.plan.slow:
            await self.plan.go_on.wait()
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
            await plan.let_late_ones_end()
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
