"""A process that redacts a call and kills itself at a step: ``python redacting.py URL CALL STEP``.

STEP: ``batch N`` (after the N-th transaction of the log), ``fold`` (before the views follow), ``clear``
(before old rows are cleared away), ``never``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.engine import make_url

from service.log import open_log
from service.postgres import open_pools
from service.projections import Engine, catalogue
from service.redaction import Fields, Order, Redactor, redactor


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(count: int, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`method`, after whose call number `count` the process is gone; 0: before the first."""
    calls = 0

    async def wrapped(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        if count == 0:
            die()
        result = await method(*arguments, **more)
        calls += 1
        if calls == count:
            die()
        return result

    return wrapped


async def main(url: str, call_id: str, step: str) -> None:
    redactor.AT_ONCE = 3
    async with open_pools(make_url(url)) as database, open_log(database, max_payload_bytes=1 << 20) as log:
        engine = Engine(database, log, catalogue())
        if step != "fold":
            engine.loop.start()
        redacting = Redactor(database, log, engine)
        if step.startswith("batch"):
            log.redact = dying_after(int(step.split()[1]), log.redact)  # type: ignore[method-assign]
        elif step == "fold":
            engine.reached = dying_after(0, engine.reached)  # type: ignore[method-assign]
        elif step == "clear":
            redacting._clear_away = dying_after(0, redacting._clear_away)  # type: ignore[method-assign]
        await redacting.redact(Order(call_id, Fields(["userData", "participants"]), "dpo", "asked for"))
        await engine.loop.stop()


asyncio.run(main(*sys.argv[1:]))
