"""The recorder through every fault at once, in this process, with its log held against the truth."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from accounting import Account, account, decoded, number_of
from proxy import FaultProxy
from pydantic import SecretStr

from service import events
from service.app import Application, open_application
from service.cometd import Timing
from service.config import Agent, Settings
from service.errors import DatabaseUnavailable, OutcomeUnknown
from service.log import EventLog, NewEvent
from service.postgres import Database
from service.recorder.access import Pace, Pacing
from service.simulator import Simulator
from service.simulator.faults import CometdKind

AGENTS = ("15000", "15001", "15002")
IMPATIENT = Pacing(
    Pace(1_000),
    Pace(1_000),
    Timing(allowance=0.5, reply=1.0, retry_cap=0.3, refused=0.4, refused_cap=0.4, pace=(0.05, 0.1)),
)
STEPS = 150
DEADLINE_S = 30.0


def as_agents(users: tuple[str, ...] = AGENTS) -> list[Agent]:
    return [Agent(user=user, password=SecretStr(f"secret-{user}")) for user in users]


class Unsteady:
    """An append that fails now and then: before anything is written, or after it is committed."""

    def __init__(self, log: EventLog, rng: random.Random) -> None:
        self.trouble = 0.0
        self._append = log.append
        self._rng = rng

    async def append(self, events: Sequence[NewEvent], **more: Any) -> list[int]:
        drawn = self._rng.random()
        if drawn < self.trouble / 2:
            raise DatabaseUnavailable("planted")
        positions = await self._append(events, **more)
        if drawn < self.trouble:
            raise OutcomeUnknown("planted")
        return positions


class Traffic:
    """Numbered messages, one series per agent."""

    def __init__(self, simulator: Simulator, rng: random.Random) -> None:
        self.simulator = simulator
        self.rng = rng
        self.numbers = Counter[str]()

    def publish(self, agent: str) -> int:
        number = self.numbers[agent]
        self.numbers[agent] += 1
        filler = "x" * self.rng.choice((10, 200, 3_000))
        body = b'{"channel":"/v2/me/calls","data":{"number":%d,"filler":"%s"}}' % (number, filler.encode())
        self.simulator.inject(agent, body)
        return number


@pytest.mark.parametrize("ack", [True, False])
@pytest.mark.parametrize("seed", range(2))
async def test_what_is_acknowledged_is_recorded_and_what_is_not_recorded_lies_in_a_gap(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, *, ack: bool
) -> None:
    told = await battle(database, tmp_path, monkeypatch, seed, ack=ack)
    assert all(one.recorded for one in told)


@pytest.mark.long
@pytest.mark.parametrize("ack", [True, False])
@pytest.mark.parametrize("seed", range(100, 140))
async def test_the_same_for_many_seeds(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, *, ack: bool
) -> None:
    await battle(database, tmp_path, monkeypatch, seed, ack=ack)


async def battle(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, *, ack: bool
) -> list[Account]:
    rng = random.Random(seed)
    url = database.url.render_as_string(hide_password=False)
    async with (
        Simulator(
            seed=seed, agent_count=3, timeout_ms=300, max_interval_ms=1_500, ack=ack, csrf=seed % 2 == 0
        ) as simulator,
        FaultProxy(simulator.port, rng) as proxy,
        open_application(
            Settings(database_url=url, gws_url=proxy.url, data_dir=tmp_path, gws_timeout_s=1.0), as_agents()
        ) as application,
    ):
        application.recorder.pacing = IMPATIENT
        unsteady = Unsteady(application.log, rng)
        monkeypatch.setattr(application.log, "append", unsteady.append)
        application.recorder.start()
        try:
            traffic = Traffic(simulator, rng)
            await settle(application, traffic)
            for _ in range(STEPS):
                traffic.publish(rng.choice(AGENTS))
                harm(simulator, proxy, rng)
                unsteady.trouble = rng.choice((0.0, 0.0, 0.0, 0.3))
                await asyncio.sleep(rng.uniform(0, 0.05))  # faults and messages come at any moment
            unsteady.trouble = 0.0
            simulator.faults.clear()
            proxy.harms, proxy.down = {}, False
            await settle(application, traffic)
        finally:
            await application.recorder.stop(keep_sessions=True)
        return [await account(application.log, simulator, agent) for agent in AGENTS]


def harm(simulator: Simulator, proxy: FaultProxy, rng: random.Random) -> None:
    """Do one thing to the simulator or the proxy, or, most often, nothing."""
    agent = rng.choice(AGENTS)
    calm: list[Callable[[], object]] = [lambda: None] * 30
    for_the_proxy: list[Callable[[], object]] = [
        lambda: setattr(proxy, "harms", {"latency": 0.2, "reset": 0.1, "cut": 0.1, "drip": 0.1}),
        lambda: setattr(proxy, "harms", {}),
        lambda: setattr(proxy, "harms", {}),
        proxy.drop,
        lambda: (setattr(proxy, "down", True), proxy.drop()),
        lambda: setattr(proxy, "down", False),
        lambda: setattr(proxy, "down", False),
    ]
    for_the_simulator: list[Callable[[], object]] = [
        lambda: simulator.kill_session(agent),
        lambda: simulator.expire_http_session(agent),
        lambda: simulator.restart() if rng.random() < 0.3 else None,
        lambda: simulator.faults.add("delay_response", agent=agent, seconds=rng.choice((0.1, 1.2))),
        *[lambda kind=kind: simulator.faults.add(kind, agent=agent) for kind in RESPONSE_FAULTS],  # type: ignore[misc]
    ]
    rng.choice([*calm, *for_the_proxy, *for_the_simulator])()


RESPONSE_FAULTS: tuple[CometdKind, ...] = (
    "lose_request",
    "lose_response",
    "cut_response",
    "garble_response",
    "http_error",
    "advice",
    "server_disconnect",
    "close_after_response",
)


async def settle(application: Application, traffic: Traffic) -> None:
    """Wait until what is published is recorded, for every agent; what fell into a gap is published anew."""
    waiting = {agent: traffic.publish(agent) for agent in AGENTS}
    async with asyncio.timeout(DEADLINE_S):
        async for page in application.log.follow(after=-1):
            for stored in page:
                match decoded(stored):
                    case events.SessionOpened(agent=agent) | events.SessionResumed(agent=agent):
                        traffic.publish(agent)
                    case events.NotificationReceived(agent=str(agent)):
                        if number_of(stored.payload.partition(b"\n")[2]) >= waiting.get(agent, math.inf):
                            del waiting[agent]
            if not waiting:
                return
