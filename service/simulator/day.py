"""`python -m service.simulator.day CALLS AGENTS SEED`: a busy day, in a process of its own.

It prints its address, reads one line, the address that takes the agents' transfer commands, and lets the
calls come, which bear times spread over three weeks. Each line that it then prints is a
JSON object: ``{"calls": N}`` on the way, and at the end what truly happened. It ends when its input does.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from service.simulator.calendar import Calendar
from service.simulator.scenario import Scenario
from service.simulator.server import Simulator

WEEK_S = 7 * 86_400
MONDAY_S = 4 * 86_400  # the first Monday of the epoch
SPEED = 400.0
TALK_S = 75.0
SETTLE_S = 0.15
PATIENCE_S = 600.0  # on a slow machine the day lasts longer, and no call of it is missing
CALLS_PER_S = 220.0
POLL_EVERY_MS = 400  # the agents' applications are advised to; what is told between two polls comes together
LOSS_EVERY = 250
REPORT_S = 0.5


async def day(calls: int, agents: int, seed: int) -> None:
    """Run the day; see the module's text."""
    lines = await standard_input()
    async with Simulator(
        seed=seed, agent_count=agents, answer_after_s=0.05, interval_ms=POLL_EVERY_MS
    ) as simulator:
        say(simulator.url)
        address = (await lines.readline()).decode().strip()
        scenario = Scenario(
            world=simulator,
            calls=calls,
            calls_per_s=CALLS_PER_S * agents / 200,
            talk_s=TALK_S,
            speed=SPEED,
            settle_s=SETTLE_S,
            patience_s=PATIENCE_S,
            commands_through=address,
            calendar=Calendar(three_weeks_ago(time.time())),
            loss_every=LOSS_EVERY,
        )
        traffic = asyncio.create_task(scenario.run())
        while not traffic.done():
            say({"calls": scenario.happened["placed"] + scenario.happened["turned away"]})
            await asyncio.wait([traffic], timeout=REPORT_S)
        await traffic
        say(truth(simulator, scenario))
        await lines.read()


async def standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


def three_weeks_ago(now: float) -> float:
    """Midnight of the Monday from which three whole weeks have passed."""
    this_week = (now - MONDAY_S) // WEEK_S * WEEK_S + MONDAY_S
    return this_week - 3 * WEEK_S


def truth(simulator: Simulator, scenario: Scenario) -> dict[str, Any]:
    """What the simulator knows it did."""
    executed = simulator.truth.transfers
    reasons = Counter(str(dict(one.user_data).get("TransferReason")) for one in executed)
    return {
        "happened": dict(scenario.happened),
        "executed": len(executed),
        "calls_transferred": len({one.call_id for one in executed}),
        "reasons": dict(reasons.most_common()),
    }


def main(work: Coroutine[Any, Any, None]) -> None:
    with suppress(ModuleNotFoundError):  # uvloop is not made for Windows
        import uvloop

        uvloop.run(work)
        return
    asyncio.run(work)


def say(what: object) -> None:
    print(what if isinstance(what, str) else json.dumps(what), flush=True)  # noqa: T201 - whoever started it reads this


if __name__ == "__main__":
    main(day(*map(int, sys.argv[1:4])))
