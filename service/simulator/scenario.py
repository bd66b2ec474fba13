"""A busy contact centre: seeded traffic of calls, holds, transfers of every kind and outcome, and chains.

Each call follows a plan that is drawn from the seed and the call's number alone; only which agents are
free depends on the run. Callers use the telephone (the switch); agents use an application that sends to
`through`, GWS itself or whatever stands in front of it, so that the traffic is recorded and commanded as
in earnest. What goes wrong goes wrong by a `Fault` aimed at the call.
"""

import asyncio
import random
from collections import Counter, deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from service.simulator.calendar import Calendar
from service.simulator.desk import Desk, click_twice
from service.simulator.faults import Fault
from service.simulator.switch import Call
from service.simulator.world import World

REASONS: dict[str | None, float] = {
    "Escalation": 21,
    "Billing": 17,
    "TechnicalSupport": 14,
    "WrongDepartment": 11,
    "Sales": 9,
    None: 7,  # the agent gives no reason, and no userData at all
    "Language": 6,
    "Retention": 5,
    "Complaint": 4,
    "Delivery": 3,
    "Fraud": 2,
    "Callback": 1,
    "DataProtection": 0.5,
}
"""Why calls are transferred, with the share of each."""

OUTCOMES: dict[str, tuple[float, dict[str, Any]]] = {
    "success": (70, {}),
    "outside": (5, {}),  # to a number of another company: nobody sees the destination's leg
    "two_step": (6, {}),
    "double_click": (2, {}),
    "recall": (3, {"kind": "recall"}),
    "reject": (3, {"kind": "reject", "status_code": 2, "text": "Destination is not valid."}),
    "denied": (1, {"kind": "reject", "status_code": 5, "text": "No permission."}),
    "error": (3, {"kind": "error_notification", "shape": "device_message"}),
    "error_call": (1, {"kind": "error_notification", "shape": "call"}),
    "silence": (1.5, {"kind": "silence"}),
    "late": (1, {"kind": "late_answer"}),
    "early": (1, {"kind": "notification_first"}),
    "lost_request": (0.5, {"kind": "drop_before_execution"}),
    "lost_answer": (1, {"kind": "drop_after_execution"}),
    "gateway": (0.5, {"kind": "http_502", "executed": True}),
    "backend": (0.5, {"kind": "http_500"}),
}
"""What becomes of a transfer, with the share of each and the fault that makes it so."""

SEGMENTS = ("Private", "Business", "Premium")
LANGUAGES = ("de", "en", "fr", "it")
SPARE_SHARE = 0.1
"""Callers wait while no more than this share of the agents is free."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One transfer in a call's plan; `back` sends it to where it came from."""

    talk_s: float
    reason: str | None
    outcome: str
    back: bool
    holds: bool
    commanded: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What will happen to one call. Times are simulated seconds."""

    internal: bool
    abandoned: bool
    ring_s: float
    hops: tuple[Hop, ...]
    last_talk_s: float
    caller_hangs_up: bool
    user_data: dict[str, Any]


@dataclass(kw_only=True)
class Scenario:
    """Traffic for a simulator, until it is cancelled or `calls` calls are over.

    `calls_per_s` is per real second; talk times, of `talk_s` simulated seconds on average, pass `speed`
    times faster than real ones (the simulator's own `speed` is set to it, so that durations look right).
    `transfer_share` of the talks end in a transfer, `back_share` of the later ones go back to the agent
    before (ping-pong). After a transfer an agent looks at the telephone for `settle_s` real seconds before
    deciding whether it worked; a caller waits `patience_s` real seconds for an agent. `through` is the
    address that the agents' applications send to, the simulator's own when None. Where `commands_through`
    is given, `commanded_share` of the single-step transfers are sent to that address instead. With a
    `calendar` the `calls` bear its times, spread over its weeks; every `loss_every` calls an agent's CometD
    session is lost. `happened` counts what was done.
    """

    world: World
    calls_per_s: float = 1.0
    calls: int | None = None
    talk_s: float = 150.0
    speed: float = 60.0
    transfer_share: float = 0.45
    back_share: float = 0.35
    settle_s: float = 0.3
    patience_s: float = 5.0
    through: str | None = None
    commands_through: str | None = None
    commanded_share: float = 0.7
    calendar: Calendar | None = None
    loss_every: int | None = None
    happened: Counter[str] = field(default_factory=Counter)
    _desks: dict[str, Desk] = field(init=False, repr=False, default_factory=dict)
    _commanders: dict[str, Desk] = field(init=False, repr=False, default_factory=dict)
    _free: list[str] = field(init=False, repr=False, default_factory=list)
    _callers: deque[asyncio.Future[str]] = field(init=False, repr=False, default_factory=deque)

    async def run(self) -> None:
        """Log the agents in and let calls come."""
        self.world.speed = self.speed
        arrivals = random.Random(f"{self.world.seed}/arrivals")
        clock = asyncio.get_running_loop().time
        async with AsyncExitStack() as stack:
            connector = await stack.enter_async_context(aiohttp.TCPConnector(limit=0))
            url = self.through or self.world.url
            self._desks = {
                number: await stack.enter_async_context(Desk(agent, url, connector))
                for number, agent in self.world.agents.items()
            }
            if self.commands_through is not None:
                self._commanders = {
                    number: await stack.enter_async_context(Desk(agent, self.commands_through, connector))
                    for number, agent in self.world.agents.items()
                }
            self._free = list(self._desks)
            await asyncio.gather(*(desk.log_in() for desk in self._desks.values()))
            async with asyncio.TaskGroup() as calls:
                number = 0
                due = clock()
                while self.calls is None or number < self.calls:
                    calls.create_task(self._live(number))
                    self._lose(number)
                    number += 1
                    due += arrivals.expovariate(self.calls_per_s)
                    await asyncio.sleep(due - clock())

    def plan(self, number: int) -> Plan:
        """Draw the plan of the call of this number: the same for the same seed and settings."""
        rng = random.Random(f"{self.world.seed}/call/{number}")
        hops: list[Hop] = []
        while rng.random() < self.transfer_share and len(hops) < 8:
            hops.append(
                Hop(
                    talk_s=self._draw_talk(rng),
                    reason=rng.choices(list(REASONS), list(REASONS.values()))[0],
                    outcome=rng.choices(list(OUTCOMES), [share for share, _ in OUTCOMES.values()])[0],
                    back=bool(hops) and rng.random() < self.back_share,
                    holds=rng.random() < 0.2,
                    commanded=rng.random() < self.commanded_share,
                )
            )
        return Plan(
            internal=rng.random() < 0.15,
            abandoned=rng.random() < 0.06,
            ring_s=rng.uniform(2, 15),
            hops=tuple(hops),
            last_talk_s=self._draw_talk(rng),
            caller_hangs_up=rng.random() < 0.5,
            user_data={
                "CustomerId": str(rng.randrange(10_000_000, 99_999_999)),
                "Segment": rng.choices(SEGMENTS, (7, 2, 1))[0],
                "Language": rng.choices(LANGUAGES, (6, 2, 1, 1))[0],
            },
        )

    def _draw_talk(self, rng: random.Random) -> float:
        return rng.lognormvariate(0, 0.8) * self.talk_s / 1.377  # e^(0.8²/2): the mean of the first factor

    def _starts_at(self, number: int) -> float | None:
        if self.calendar is None or self.calls is None:
            return None
        return self.calendar.moment(number / self.calls)

    def _lose(self, number: int) -> None:
        """Lose the session of an agent, now and then."""
        if self.loss_every and number % self.loss_every == self.loss_every - 1:
            agent = random.Random(f"{self.world.seed}/loss/{number}").choice(list(self._desks))
            self.happened["sessions lost"] += self.world.kill_session(agent)

    # One call

    async def _live(self, number: int) -> None:
        plan = self.plan(number)
        agent = await self._next_free()
        if agent is None:
            self.happened["turned away"] += 1
            return
        caller = (self._seat(None) if plan.internal else None) or f"030{number:07d}"
        self.happened["placed"] += 1
        call = self.world.place_call(
            caller, agent, user_data=plan.user_data, starts_at=self._starts_at(number)
        )
        try:
            await self._pass(plan.ring_s)
            if plan.abandoned:
                self.happened["abandoned"] += 1
                self._stand(agent)
            else:
                await self._desks[agent].operate(call.id, "Answer")
                await self._talk(plan, call, agent)
        finally:
            self._hang_up(call)
            self._stand(caller)

    async def _talk(self, plan: Plan, call: Call, agent: str) -> None:
        """Talk and transfer, hop by hop; ends before the call is hung up."""
        before: str | None = None
        for hop in plan.hops:
            if hop.holds:
                await self._hold(call, agent, hop.talk_s / 3)
            await self._pass(hop.talk_s)
            target = self._seat(before) if hop.back else self._skilled(hop.reason)
            if target is None or call.leg(agent) is None:
                self._stand(target)
                break
            self.happened[hop.outcome] += 1
            if await self._transfer(call, agent, target, hop):
                self._stand(agent)
                before, agent = agent, target
            else:
                self._stand(target)
            if call.leg(agent) is None:  # handed to another company
                break
        await self._pass(plan.last_talk_s)
        if not plan.caller_hangs_up and call.leg(agent):
            await self._desks[agent].operate(call.id, "Hangup")
        self._stand(agent)

    async def _hold(self, call: Call, agent: str, seconds: float) -> None:
        await self._desks[agent].operate(call.id, "Hold")
        await self._pass(seconds)
        await self._desks[agent].operate(call.id, "Retrieve")

    async def _transfer(self, call: Call, agent: str, target: str, hop: Hop) -> bool:
        """Let an agent transfer; tells whether the target has the call."""
        desk = self._desks[agent]
        commander = self._commanders.get(agent, desk) if hop.commanded else desk
        fault = self._aim(hop.outcome, call, agent)
        destination = "0800123456" if hop.outcome == "outside" else target
        given: dict[str, Any] = {"destination": {"phoneNumber": destination}}
        if hop.reason is not None:
            given["userData"] = {"TransferReason": hop.reason, "TransferAgent": f"Agent{agent}"}
        if hop.outcome == "two_step":
            await desk.operate(call.id, "InitiateTransfer", **given)
            await asyncio.sleep(self.settle_s)
            await desk.operate(call.id, "CompleteTransfer")
        elif hop.outcome == "double_click":
            await click_twice(commander, call.id, "SingleStepTransfer", **given)
        else:
            await commander.operate(call.id, "SingleStepTransfer", **given)
        await asyncio.sleep(self.settle_s)
        if fault in self.world.faults.waiting:
            self.world.faults.waiting.remove(fault)
        if hop.outcome == "recall" and (returned := call.leg(agent)) and returned.state == "Ringing":
            await desk.operate(call.id, "Answer")
        return call.leg(target) is not None

    def _aim(self, outcome: str, call: Call, agent: str) -> Fault | None:
        rule = OUTCOMES[outcome][1]
        if not rule:
            return None
        return self.world.faults.add(**rule, call=call.id, agent=agent, seconds=self.settle_s / 2)

    def _hang_up(self, call: Call) -> None:
        """Let whoever is left put the telephone down."""
        for each in (call, call.consult):
            if each is not None and each.live:
                self.world.tell(self.world.switch.clear(each))

    async def _pass(self, simulated_s: float) -> None:
        await asyncio.sleep(simulated_s / self.speed)

    # Who is free

    @property
    def _spare(self) -> int:
        return int(SPARE_SHARE * len(self._desks))

    async def _next_free(self) -> str | None:
        """Take the agent free for longest; wait for one as a caller would, and give up with None.

        Some agents are left for transfers.
        """
        if len(self._free) > self._spare:
            return self._seat(None)
        turn = asyncio.get_running_loop().create_future()
        self._callers.append(turn)
        if not (await asyncio.wait([turn], timeout=self.patience_s))[0]:
            turn.cancel()
            return None
        agent: str = turn.result()
        return agent

    def _seat(self, wanted: str | None) -> str | None:
        """Take a free agent: the one wanted, or the one free for longest; None if there is none."""
        agent = wanted or (self._free[0] if self._free else None)
        if agent not in self._free:
            return None
        self._free.remove(agent)
        return agent

    def _skilled(self, reason: str | None) -> str | None:
        """Take a free agent who is there for this reason, the most senior first; anyone if there is none."""
        reasons = list(REASONS)
        team = list(self._desks)[reasons.index(reason) :: len(reasons)]
        return self._seat(next((one for one in team if one in self._free), None))

    def _stand(self, agent: str | None) -> None:
        """Free an agent again, for whoever has waited longest."""
        if agent not in self._desks or agent in self._free:
            return
        self._free.append(agent)
        while self._callers and len(self._free) > self._spare:
            turn = self._callers.popleft()
            if not turn.done():
                turn.set_result(self._free.pop(0))
