"""A small day in front of the service: seeded calls and transfers through its own door, and what is true."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import aiohttp

from service.log import EventLog
from service.simulator import Call, Simulator

REASONS = ("Escalation", "Billing", "Sales", "Language", "Retention")
SHARES = (8, 5, 3, 2, 1)
SCRIPT = '<script>document.title = "broken in"</script><img src=x onerror="document.title=1">'
"""What a customer might write, and no page may run."""


@dataclass
class Day:
    """Lets `calls` calls come, each transferred up to three times; `requested` is what was asked for."""

    simulator: Simulator
    url: str
    http: aiohttp.ClientSession
    log: EventLog
    seed: int = 7
    requested: list[dict[str, Any]] = field(default_factory=list)

    async def run(self, calls: int, *, at_a_time: int = 5) -> None:
        """Play the day; ends when the last call does."""
        agents = list(self.simulator.agents)
        for start in range(0, calls, at_a_time):
            together = range(start, min(start + at_a_time, calls))
            seats = random.Random(f"{self.seed}/{start}").sample(agents, len(agents))
            share = len(seats) // at_a_time
            await asyncio.gather(
                *(
                    self.play(number, seats[place * share : (place + 1) * share])
                    for place, number in enumerate(together)
                )
            )

    async def play(self, number: int, seats: Sequence[str]) -> None:
        """One call from its ringing to its end, between agents who are free for it."""
        rng = random.Random(f"{self.seed}/call/{number}")
        data = {"CustomerId": str(rng.randrange(10**8)), "Segment": rng.choice(("Private", "Business"))}
        if number == 0:
            data["Note"] = SCRIPT
        call = self.simulator.place_call(f"030{number:07d}", seats[0], user_data=data)
        await self.recorded(call.id)
        self.simulator.answer(call.id, seats[0])
        holder = 0
        for _ in range(rng.choices((0, 1, 2, 3), (2, 6, 2, 1))[0]):
            await self.recorded(call.id)
            target = (holder + 1) % len(seats)
            reason = rng.choices(REASONS, SHARES)[0] if rng.random() < 0.9 else None
            fault = self.aim(rng, call.id, seats[holder])
            await self.transfer(call.id, seats[holder], seats[target], reason)
            if fault is None:
                await self.simulator.until(partial(talking, call, seats[target]))
                holder = target
        await self.recorded(call.id)
        if rng.random() < 0.85:
            self.simulator.hangup(call.id, seats[holder])

    def aim(self, rng: random.Random, call_id: str, agent: str) -> object:
        """Now and then GWS says no."""
        if rng.random() > 0.1:
            return None
        return self.simulator.faults.add(
            "reject", call=call_id, agent=agent, status_code=2, text="Destination is not valid."
        )

    async def transfer(self, call_id: str, agent: str, to: str, reason: str | None) -> None:
        """Transfer as an application does: again, while the last transfer is being settled."""
        body: dict[str, Any] = {"operationName": "SingleStepTransfer", "destination": {"phoneNumber": to}}
        if reason is not None:
            body["userData"] = {"TransferReason": reason, "TransferAgent": f"Agent{agent}"}
        self.requested.append({"call_id": call_id, "agent": agent, "destination": to, "reason": reason})
        credentials = {"Authorization": aiohttp.encode_basic_auth(agent, f"secret-{agent}")}
        async with asyncio.timeout(30):
            end = await self.log.next_position() - 1
            while await self.post(call_id, body, credentials) == HTTPStatus.CONFLICT:
                await self.log.watch.beyond(end)
                end = await self.log.next_position() - 1

    async def post(self, call_id: str, body: dict[str, Any], headers: dict[str, str]) -> int:
        url = f"{self.url}/api/v2/me/calls/{call_id}"
        async with self.http.post(url, json=body, headers=headers) as response:
            await response.read()
            return response.status

    async def recorded(self, call_id: str) -> None:
        """Wait until the service has recorded, and so acknowledged, all that was told of a call."""
        sessions = self.simulator.truth.sessions
        await self.simulator.until(
            lambda: all(
                message.acknowledged_at is not None
                for session in sessions.values()
                for message in session.messages
                if call_id.encode() in message.body
            ),
            within_s=20,
        )

    def count_by(self, name: str) -> Counter[str]:
        return Counter(one[name] or "unknown" for one in self.requested)


def talking(call: Call, number: str) -> bool:
    leg = call.leg(number)
    return leg is not None and leg.state == "Established"
