"""SIGKILL at every point of a transfer, crossed with what GWS may do; the simulator knows the truth."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL
from transfer_site import OPEN, Site, open_site
from victim import POINTS, STOP

from service.log import StoredEvent
from service.simulator import Call, Simulator
from service.transfers import State

BEHAVIOURS: list[tuple[str, dict[str, Any]]] = [
    ("none", {}),
    ("late_answer", {"seconds": 0.3}),
    ("drop_before_execution", {}),
    ("drop_after_execution", {}),
    ("http_500", {"executed": True}),
    ("http_500", {"executed": False}),
    ("http_502", {"executed": True}),
    ("http_502", {"executed": False}),
    ("no_status_code", {"executed": True}),
    ("no_status_code", {"executed": False}),
    ("silence", {}),
    *(
        ("error_notification", {"shape": shape})
        for shape in ("device", "device_message", "call", "user", "event")
    ),
    ("notification_first", {"seconds": 0.1}),
    ("recall", {"seconds": 0.3}),
]
DELIVERIES = (
    None,
    None,
    "duplicate_notification",
    "reorder_notification",
    "lose_notification",
    "kill_session",
    "cometd_down",
)
DATA = (None, {"TransferReason": "Escalation"})
AT_ONCE = 8


@pytest.mark.parametrize(("each", "seed"), [(3, 1), pytest.param(150, 2, marks=pytest.mark.long)])
async def test_a_crash_anywhere_leaves_at_most_one_transfer_and_a_true_record(
    database_url: URL, each: int, seed: int
) -> None:
    rng = random.Random(seed)
    rounds = [point for point in POINTS for _ in range(each)]
    rng.shuffle(rounds)
    tally: Counter[str] = Counter()
    turns = asyncio.Semaphore(AT_ONCE)
    async with (
        Simulator(seed=seed, agent_count=4) as simulator,
        open_site(database_url, simulator) as survivor,
        victims() as victim,
    ):

        async def one(number: int, point: str) -> None:
            async with turns:
                await crash(survivor, victim, rng, number=number, point=point, tally=tally)

        await asyncio.gather(*(one(number, point) for number, point in enumerate(rounds)))
        assert len(simulator.truth.transfers) == tally["executed"]
    print(f"\n{len(rounds)} rounds: {dict(sorted(tally.items()))}")  # noqa: T201 the counts are the result
    for point in POINTS[:6]:
        assert tally[f"killed {point}"] >= 0.3 * each, point  # some behaviours give no answer to die after
    assert tally["killed"] >= 0.6 * len(rounds)


async def crash(
    survivor: Site, victim: Victims, rng: random.Random, *, number: int, point: str, tally: Counter[str]
) -> None:
    """One round: a process dies, another goes on, and what is on record is what happened."""
    call = survivor.call("15000", "15003")
    with suppress(TimeoutError):  # it may come while CometD is down
        await survivor.recorded(f"call-{call.id}", established, within_s=3.0)
    kind, rule = rng.choice(BEHAVIOURS)
    simulator: Simulator = survivor.simulator
    if kind != "none":
        simulator.faults.add(kind, call=call.id, **rule)  # type: ignore[arg-type]
    delivery = rng.choice(DELIVERIES)
    if delivery == "kill_session":
        simulator.kill_session(rng.choice(("15000", "15002")))
    elif delivery == "cometd_down":
        take_cometd_down(simulator)
    elif delivery is not None:
        simulator.faults.add(delivery, call=call.id)
    turn = {"point": point, "call": call.id, "to": "15002", "key": f"k-{number}", "data": rng.choice(DATA)}
    killed = await victim.transfer(survivor, turn)
    tally["killed"] += killed
    tally[f"killed {point}"] += killed
    found = await survivor.transfers(call.id)
    if found:
        await check(survivor, call, tally, f"{point}, {kind} {rule}, {delivery}, data {turn['data']}")
    else:
        assert point == POINTS[0]
        assert survivor.executed(call.id) == 0
        tally["nothing was promised"] += 1
    tally["executed"] += survivor.executed(call.id)


def established(event: StoredEvent) -> bool:
    return b'"Established"' in event.payload


def take_cometd_down(simulator: Simulator) -> None:
    """All sessions are gone, and the next requests of CometD go nowhere; REST goes on."""
    for agent in simulator.agents:
        simulator.kill_session(agent)
    for operation in ("handshake", "connect", "subscribe"):
        simulator.faults.add("lose_request", operation=operation, times=4)


async def check(survivor: Site, call: Call, tally: Counter[str], told: str) -> None:
    executed = survivor.executed(call.id)
    assert executed <= 1, told
    try:
        transfer = await survivor.ended(call.id, within_s=6.0)
    except TimeoutError:
        transfer = await survivor.ended(call.id, but=OPEN - {State.IN_DOUBT})
        assert transfer.outcome is not None
        if transfer.state is State.IN_DOUBT:
            assert transfer.outcome.cause, told  # type: ignore[attr-defined]
    kinds = await survivor.kinds(call.id)
    executed = survivor.executed(call.id)
    assert executed <= 1, told
    if "TransferConfirmed" in kinds:
        assert executed == 1, f"confirmed and not executed: {told}"
    if "TransferFailed" in kinds or "TransferRejected" in kinds:
        assert executed == 0, f"{transfer.state} and executed: {told}"
    tally[transfer.state] += 1
    sent = sum(command.call_id == call.id for command in survivor.simulator.truth.commands)
    assert sent <= 1, f"sent {sent} times: {told}"


async def test_a_stopped_process_finds_its_claim_gone_and_sends_nothing(database_url: URL) -> None:
    async with (
        Simulator(seed=1, agent_count=4) as simulator,
        open_site(database_url, simulator) as survivor,
        victims() as victim,
    ):
        for number in range(3):
            call = await survivor.seen_call("15000", "15003")
            turn = {"point": STOP, "call": call.id, "to": "15002", "key": f"k-{number}", "data": None}
            ending = asyncio.create_task(victim.transfer(survivor, turn))
            transfer = await survivor.ended(call.id, but=OPEN)
            assert transfer.state is State.FAILED  # taken over: GWS still had the call
            os.kill(victim.pid, signal.SIGCONT)
            await ending
            assert survivor.executed(call.id) == 0
            assert not [command for command in simulator.truth.commands if command.call_id == call.id]
            assert (await survivor.post(call.id, key=f"k-{number}")).status == 500
            assert survivor.executed(call.id) == 0


class Victims:
    """The program that forks them, one at a time."""

    def __init__(self, program: asyncio.subprocess.Process) -> None:
        self.pid = 0
        self._program = program
        self._turn = asyncio.Lock()

    async def transfer(self, survivor: Site, turn: dict[str, Any]) -> bool:
        """Whether the process was killed."""
        url = survivor.database.url.render_as_string(hide_password=False)
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        async with self._turn, asyncio.timeout(60):
            line = json.dumps({**turn, "database": url, "gws": survivor.simulator.url})
            self._program.stdin.write(line.encode() + b"\n")
            self.pid = json.loads(await self._program.stdout.readline())["pid"]
            killed: bool = json.loads(await self._program.stdout.readline())["killed"]
            return killed


@asynccontextmanager
async def victims() -> AsyncIterator[Victims]:
    here = Path(__file__).parent
    paths = [str(here), str(here.parents[1]), str(here.parents[2])]
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        str(here / "victim.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        yield Victims(program)
    finally:
        assert program.stdin is not None
        program.stdin.close()
        await program.wait()
