"""The contract of every background loop: starts once, says when it is ready, stops twice safely, says why.

A room's loop is a coroutine function that runs until it is cancelled. `Loop` runs it: after a fault it logs
the reason, waits (longer each time, with jitter), and starts it again, until it is stopped.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0


class Loop:
    """Runs `work` in the background until `stop`, and starts it again after a fault.

    `work` may call `beat()` as it goes: a beat says "alive and ready" and ends the series of failures.
    """

    def __init__(self, name: str, work: Callable[[Loop], Awaitable[None]]) -> None:
        self.name = name
        self.failures = 0
        self.last_beat: datetime | None = None
        self.last_fault: str | None = None
        self.ready = asyncio.Event()
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Cancel the work and wait until it is gone. Calling it again does no harm."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def ended(self) -> None:
        """Wait until the work has come to its own end."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def beat(self) -> None:
        self.last_beat = datetime.now(UTC)
        self.failures = 0
        self.ready.set()

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _run(self) -> None:
        while True:
            try:
                await self._work(self)
            except Exception as error:
                self.failures += 1
                self.last_fault = f"{type(error).__name__}: {error}"
                pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.failures - 1))
                pause *= 0.5 + random.random() / 2  # noqa: S311 jitter, not a secret
                logger.warning(
                    "loop failed",
                    extra={"loop": self.name, "fault": self.last_fault, "pause_s": pause},
                    exc_info=self.failures == 1,
                )
                await asyncio.sleep(pause)
            else:
                return
