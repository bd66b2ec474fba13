"""All agents' recordings in one process, as many as there are and as the agents' file says at the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from service.cometd import Timing
from service.config import read_agents
from service.errors import BadConfig, DatabaseError
from service.log import EventLog
from service.loops import Loop
from service.postgres import Database
from service.recorder.access import Accesses, Pace, Pacing
from service.recorder.heap import Heap
from service.recorder.kept import Keeper, Kept
from service.recorder.ownership import Beat, Ownership
from service.recorder.session import AgentRecorder
from service.recorder.status import Status
from service.recorder.vault import Vault

logger = logging.getLogger(__name__)

CLOSING_S = 5.0  # how long a clean end of all sessions may take
OPENINGS_PER_S = 200.0
RESUMPTIONS_PER_S = 1000.0
LOOK_S = 1.0  # how often the agents' file is looked at


class Recorder:
    """Records the agents of `accesses`, as far as no other process records them.

    `gws_url`: the server that kept sessions are good for. `agents_file`: watched, if given; what it says
    replaces what is in `accesses`.
    """

    def __init__(
        self,
        database: Database,
        log: EventLog,
        accesses: Accesses,
        vault: Vault,
        gws_url: str,
        *,
        agents_file: Path | None = None,
    ) -> None:
        self.agents: dict[str, AgentRecorder] = {}
        self._log = log
        self.accesses = accesses
        self._vault = vault
        self._gws_url = gws_url
        self._ending: set[str] = set()
        self._heap = Heap(lambda: sum(agent.status is Status.OPEN for agent in self.agents.values()))
        self.pacing = Pacing(Pace(OPENINGS_PER_S), Pace(RESUMPTIONS_PER_S), Timing())
        self.ownership = Ownership(
            database, wanted=self._wanted, take=self._take, drop=self._drop, beats=self._beats
        )
        self._watching = None if agents_file is None else AgentsFile(agents_file, self)

    def start(self) -> None:
        self._heap.loop.start()
        self.ownership.loop.start()
        if self._watching is not None:
            self._watching.loop.start()

    async def stop(self, *, keep_sessions: bool = False) -> None:
        """End in good order; with `keep_sessions` a successor can go on where this process leaves off.

        What does not end in time is left to expire at GWS, or to the successor.
        """
        if self._watching is not None:
            await self._watching.loop.stop()
        users = list(self.agents)
        self._ending.update(self.accesses)
        await self._end(users, keep_session=keep_sessions)
        with suppress(DatabaseError):
            await self.ownership.release(users)
        await self.ownership.loop.stop()
        await self._heap.loop.stop()

    async def replace(self, changed: set[str]) -> None:
        """Take up that these agents were added to `accesses`, removed from them or changed."""
        there = [user for user in changed if user in self.agents]
        removed = [user for user in there if user not in self.accesses]
        kept = [user for user in there if user in self.accesses]
        self._ending.update(there)
        await asyncio.gather(self._end(removed, keep_session=False), self._end(kept, keep_session=True))
        try:
            for user in removed:
                await self.ownership.forget(user)
            await self.ownership.release(there)  # of those removed, what could not be ended in time
        except DatabaseError as error:
            logger.warning("agents are let go later", extra={"fault": str(error)})
        self._ending.difference_update(there)
        self.ownership.stir()

    async def _end(self, users: list[str], *, keep_session: bool) -> None:
        recorders = [self.agents[user] for user in users]
        for recorder in recorders:
            recorder.close(keep_session=keep_session)
        waiting = [asyncio.create_task(recorder.loop.ended()) for recorder in recorders]
        if waiting:
            await asyncio.wait(waiting, timeout=CLOSING_S)
        for task in waiting:
            task.cancel()
        for user in users:
            await self._drop(user)

    def _wanted(self) -> list[str]:
        return [
            user
            for user, access in self.accesses.items()
            if access.agent.source == "session" and user not in self._ending
        ]

    def _take(self, user: str, kept: Kept) -> None:
        access = self.accesses.get(user)
        if access is None:
            return  # removed while it was asked for
        keeper = Keeper(user, self.ownership.number, self._gws_url, self._vault)
        recorder = AgentRecorder(
            access,
            self._log,
            keeper=keeper,
            kept=kept,
            ownership=self.ownership,
            pacing=self.pacing,
        )
        self.agents[user] = recorder
        recorder.loop.start()

    async def _drop(self, user: str) -> None:
        recorder = self.agents.pop(user, None)
        if recorder is not None:
            await recorder.loop.stop()

    def _beats(self) -> list[Callable[[], Beat]]:
        return [recorder.beat for recorder in self.agents.values()]


class AgentsFile:
    """Looks at the agents' file now and then, and has `recorder` take up what has changed in it.

    While the file is wrong, what it said before goes on.
    """

    def __init__(self, path: Path, recorder: Recorder) -> None:
        self.loop = Loop("agents file", self._run)
        self._path = path
        self._recorder = recorder
        self._seen: tuple[int, ...] | None = None

    async def _run(self, loop: Loop) -> None:
        while True:
            await self._look()
            loop.beat()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            agents = read_agents(self._path)
        except BadConfig as error:
            logger.error("the agents' file is wrong and not taken up", extra={"fault": str(error)})  # noqa: TRY400
            return
        changed = self._recorder.accesses.replace(agents)
        if changed:
            logger.info("the agents' file has changed", extra={"agents": len(changed)})
            await self._recorder.replace(changed)

    def _state(self) -> tuple[int, ...]:
        """What changes when the file does; nothing while it is not there."""
        try:
            now = self._path.stat()
        except OSError:
            return ()
        return now.st_mtime_ns, now.st_size, now.st_ino
