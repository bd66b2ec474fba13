"""How far the log reaches, as seen by this process.

One LISTEN connection for everybody, and a poll behind it: a notification that never comes costs at most
`POLL_S`, and a connection on which nothing passes any more, although nobody has closed it, `DEAD_S` beside.
What this process appends itself is known at once.
"""

from __future__ import annotations

import asyncio

from service.log import sql
from service.loops import Loop
from service.postgres import Database, database_errors

POLL_S = 1.0
DEAD_S = 5.0


class HeadWatch:
    """Knows the next free position (so positions below it are there) and wakes those who wait for more."""

    def __init__(self, database: Database) -> None:
        self.next_position = 0
        self._database = database
        self._moved = asyncio.Event()
        self._loop = Loop("log watch", self._watch)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def advance(self, next_position: int) -> None:
        """Note that the log is known to reach up to `next_position`."""
        if next_position > self.next_position:
            self.next_position = next_position
            self._moved.set()
            self._moved = asyncio.Event()

    async def beyond(self, position: int, *, timeout_s: float | None = None) -> bool:
        """Wait until there is an event after `position`; False if none has come within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.next_position <= position + 1:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def _watch(self, loop: Loop) -> None:
        with database_errors():
            connection = await self._database.connect()
            try:
                await connection.add_listener("event_log", lambda *heard: self.advance(int(str(heard[-1]))))
                while True:
                    self.advance(await connection.fetchval(sql.HEAD, timeout=DEAD_S))
                    loop.beat()
                    await asyncio.sleep(POLL_S)
            finally:
                connection.terminate()
