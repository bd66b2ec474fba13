"""The simulated GWS without its sockets: agents, calls, sessions, faults and the truth about them.

Whoever changes a call here (a REST operation, a test, the scenario) gets the views the switch made, and
`tell` turns them into notifications in the queues of the agents' CometD sessions.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.simulator import operations
from service.simulator.agents import make_agents
from service.simulator.bayeux import Bayeux
from service.simulator.faults import Fault, Faults
from service.simulator.logins import Logins
from service.simulator.messages import (
    CALLS_CHANNEL,
    DEVICES_CHANNEL,
    call_notification,
    device_notification,
    error_notification,
)
from service.simulator.options import Options
from service.simulator.switch import Call, Leg, Switch, View
from service.simulator.truth import ExecutedTransfer, Truth

SAMPLE_CALLS = (
    ("01RCC3N118B1V0SL8O7GK2LAES00000D", "007102719818000d"),
    ("01RCC3N118B1V0SL8O7GK2LAES00000G", "0071027198180010"),
)
"""Call id and connId of the two calls in the published samples of SingleStepTransfer."""


@dataclass(kw_only=True)
class World(Options):
    """A GWS as its options make it. All of it lives on one event loop."""

    def __post_init__(self) -> None:
        clock = time.time
        self.agents = make_agents(self.seed, self.first_agent, self.agent_count)
        self.truth = Truth()
        self.faults = Faults(random.Random(f"{self.seed}/faults"))
        devices = {agent.number: agent.device_id for agent in self.agents.values()}
        self.switch = Switch(self, devices, clock)
        self.bayeux = Bayeux(self, self.faults, self.truth, clock)
        self.logins = Logins(self.agents, self.seed)
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def url(self) -> str:
        """The address to send requests to; complete once the simulator listens."""
        return f"http://{self.host}:{self.port}"

    @property
    def calls(self) -> dict[str, Call]:
        """Every call ever placed, by call id."""
        return self.switch.calls

    # Calls

    def place_call(
        self,
        caller: str,
        agent: str,
        *,
        call_id: str | None = None,
        conn_id: str | None = None,
        user_data: dict[str, Any] | None = None,
        starts_at: float | None = None,
    ) -> Call:
        """Let `caller`, an agent or any other number, call an agent, who hears it ring.

        With `starts_at` what is told of the call bears the times of a call that began then.

        Raises `Refused` for an impossible number or a call id that exists.
        """
        pairs = list((user_data or {}).items())
        call, views = self.switch.place(
            caller, agent, call_id=call_id, conn_id=conn_id, user_data=pairs, starts_at=starts_at
        )
        self.tell(views)
        return call

    def place_sample_calls(self) -> tuple[Call, Call]:
        """Place the two calls of the published samples: 15001 calls 15000, who has answered.

        When 15000 then sends the samples' requests, it is answered and notified in the samples' own bytes.
        Raises ValueError when the options are not those of the samples.
        """
        if self.form != "8.5.2" or not {"15000", "15001", "15002"} <= self.agents.keys():
            raise ValueError("the samples' calls need form='8.5.2' and the agents 15000, 15001 and 15002")
        first, second = (self._place_sample_call(*ids) for ids in SAMPLE_CALLS)
        return first, second

    def _place_sample_call(self, call_id: str, conn_id: str) -> Call:
        # The samples name 15001 as the called number although 15000 shows it as the other party.
        call, views = self.switch.place(
            "15001", "15000", call_id=call_id, conn_id=conn_id, dnis="15001", sample=True
        )
        self.tell(views)
        self.answer(call.id, "15000")
        return call

    def operate(self, call_id: str, agent: str, operation: str, **parameters: Any) -> None:
        """Do an operation as if the agent had used a telephone: no REST, no fault.

        Raises `Refused` when it is not possible.
        """
        call, leg = self.switch.leg(call_id, agent)
        views = self.execute(call, leg, {"operationName": operation, **parameters})
        self.tell(views)
        self.answer_soon(call)

    def answer(self, call_id: str, agent: str) -> None:
        self.operate(call_id, agent, "Answer")

    def hangup(self, call_id: str, agent: str) -> None:
        self.operate(call_id, agent, "Hangup")

    def execute(self, call: Call, leg: Leg, parameters: dict[str, Any]) -> list[View]:
        """Do an operation and record a single-step transfer; the views are still to be told."""
        views = operations.execute(self.switch, call, leg, parameters)
        if parameters["operationName"] == "SingleStepTransfer":
            self.truth.transfers.append(
                ExecutedTransfer(
                    call_id=call.id,
                    conn_id=call.conn_id,
                    agent=leg.number,
                    destination=operations.phone_number(parameters),
                    at=self.switch.time_of(call),
                    user_data=list(call.user_data),
                )
            )
        return views

    def tell(self, views: Iterable[View]) -> None:
        """Notify each agent concerned."""
        for view in views:
            generated_ms = int(self.switch.time_of(view.call) * 1000) if self.metrics else None
            body = call_notification(view, self.url, self.form, generated_ms)
            self.bayeux.publish(view.number, CALLS_CHANNEL, body, call_id=view.call.id, state=view.state)

    def answer_soon(self, call: Call) -> None:
        """Let the parties at whom the call (or its consult call) rings answer after `answer_after_s`."""
        if self.answer_after_s is None:
            return
        for each in (call, call.consult):
            for leg in each.live if each else ():
                if leg.state == "Ringing" and each is not None:
                    self.later(self.answer_after_s, partial(self._answer, each, leg))

    def _answer(self, call: Call, leg: Leg) -> None:
        if leg.state == "Ringing":
            self.tell(self.switch.answer(call, leg))

    def recall_later(self, call: Call, transfer: ExecutedTransfer, seconds: float) -> None:
        """Bring a transferred call back to its agent after a time, unless it has been answered."""

        def come_back() -> None:
            views = self.switch.recall(call, transfer.destination, transfer.agent)
            transfer.recalled = bool(views)
            self.tell(views)

        self.later(seconds, come_back)

    def report_error(self, fault: Fault, call: Call, leg: Leg) -> None:
        """Send an agent the error notification that a fault describes."""
        agent, view = self.agents[leg.number], self.switch.view(call, leg)
        channel, body = error_notification(
            fault.shape,
            agent=agent,
            view=view,
            url=self.url,
            form=self.form,
            code=fault.error_code,
            text=fault.text,
        )
        self.bayeux.publish(leg.number, channel, body, call_id=call.id, state="Error")

    def log_in(self, number: str, *, present: bool) -> None:
        """Log an agent in or out (Start and EndContactCenterSession) and tell it."""
        self.agents[number].logged_in = present
        body = device_notification(self.agents[number], self.url)
        self.bayeux.publish(number, DEVICES_CHANNEL, body)

    # Faults that strike at once

    def kill_session(self, agent: str) -> int:
        """Forget the CometD sessions of an agent: 402 for the held poll too. Gives how many there were."""
        sessions = self.bayeux.sessions_of(agent)
        for session in sessions:
            self.bayeux.end(session, "killed")
        self.faults.struck["kill_session"] += len(sessions)
        return len(sessions)

    def expire_http_session(self, agent: str) -> None:
        """Forget the HTTP sessions of an agent: 403 with statusCode 20, and other CSRF tokens afterwards."""
        self.logins.forget(agent)
        self.faults.struck["expire_http_session"] += 1

    def restart(self) -> None:
        """Forget all CometD and HTTP sessions, as a restarted server has; held connections break.

        The calls go on: they live in the telephone switch.
        """
        self.bayeux.end_all("restart", "dropped")
        self.logins.forget()
        self.faults.struck["restart"] += 1

    def inject(self, agent: str, element: bytes, channel: str = CALLS_CHANNEL) -> None:
        """Queue any bytes as an element of the array; `channel` says who has subscribed to them."""
        self.bayeux.publish(agent, channel, element)
        self.faults.struck["inject"] += 1

    # Time

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something after a time, unless the simulator stops first."""

        def run() -> None:
            self._timers.discard(timer)
            do()

        timer = asyncio.get_running_loop().call_later(seconds, run)
        self._timers.add(timer)

    def cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    async def until(self, fact: Callable[[], object], within_s: float = 20.0) -> None:
        """Wait until a fact about the simulator holds; raises TimeoutError when it does not come to hold."""
        async with asyncio.timeout(within_s):
            while not fact():  # noqa: ASYNC110 - a fact is any expression over the simulator: nothing signals it
                await asyncio.sleep(0.002)
