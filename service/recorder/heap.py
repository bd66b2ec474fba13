"""Keeps the garbage collector from stopping a process that holds thousands of sessions."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

from service.loops import Loop

LOOK_S = 1.0


class Heap:
    """With many sessions, has a collection made when memory has grown, not when objects have come.

    Each poll replaces some hundred objects of its session, so Python's young generation holds nearly all that
    there is: measured with 5,000 sessions, a "young" collection stopped the process for 0.4 s every 14 s,
    and found nothing, for polls leave no cycles behind. What fails or ends does, and memory grows by that:
    when half as much again is in use as after the last collection, and no more sessions than before, there
    is another. So what is held is bounded, and a process in which all goes well is not stopped. (Of 5,000
    new sessions each takes up some sixty blocks more with its first delivery, 17 % in all.)

    `sessions`: how many there are now. Once there were `MANY`, it goes on so until `loop` is stopped.
    """

    MANY = 500
    GROWTH = 1.5

    def __init__(self, sessions: Callable[[], int]) -> None:
        self.loop = Loop("heap", self._run)
        self._sessions = sessions
        self._most = 0
        self._blocks = 0

    async def _run(self, loop: Loop) -> None:
        try:
            while True:
                self.look()
                loop.beat()
                await asyncio.sleep(LOOK_S)
        finally:
            if self._most:
                gc.enable()

    def look(self) -> None:
        """Collect if memory has grown and more sessions do not account for it; Python itself shall not."""
        sessions = self._sessions()
        if max(sessions, self._most) < self.MANY:
            return
        gc.disable()  # each time: another heap of this process may have ended
        blocks = sys.getallocatedblocks()
        if sessions > self._most:
            self._most, self._blocks = sessions, max(blocks, self._blocks)
        elif blocks > self.GROWTH * self._blocks:
            gc.collect()
            self._blocks = sys.getallocatedblocks()
