"""What an agent's world looks like when a session opens: which calls there are, asked until GWS has said.

It is asked before the first poll, so that what is published meanwhile comes after it. If it is not told then,
it is asked again between polls, ever less often. What the session has told of a call by then stands: a
snapshot says something only of calls that the session has not told of (`service.projections.call_state`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime
from uuid import UUID

from service.errors import GwsError
from service.events import CallsSnapshotTaken
from service.gws import Answer
from service.gws.answers import Verdict
from service.recorder.access import Access

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 300.0  # between two tries, the longest pause, drawn evenly from nothing
MOST_DOUBLINGS = 10


class Snapshot:
    """The snapshot of one agent's calls that is still to be taken, if one is."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._due: float | None = None  # by the event loop's clock; None: nothing is to be asked
        self._tries = 0
        self._told = False  # an answer that says nothing is told of once

    def want(self) -> None:
        """A session has opened: ask at once."""
        self._due, self._tries, self._told = asyncio.get_running_loop().time(), 0, False

    def drop(self) -> None:
        """The session is over; the next one asks anew."""
        self._due = None

    async def take(self, session: UUID, *, within_s: float) -> tuple[CallsSnapshotTaken, bytes] | None:
        """Ask if it is time to, for so many seconds; the event that is to be recorded, and its body.

        Logs the agent in first, if told to. An answer that refuses is final; any other that says no calls is
        recorded once, and asked for again.
        """
        if self._due is None or asyncio.get_running_loop().time() < self._due:
            return None
        agent = self._access.agent
        try:
            async with asyncio.timeout(within_s):
                answer = await self._ask()
        except (GwsError, TimeoutError) as error:
            self._ask_again(session, str(error) or type(error).__name__)
            return None
        if answer.verdict is Verdict.IN_DOUBT:
            self._ask_again(session, f"GWS answered {answer.http_status}")
            if self._told:
                return None
            self._told = True
        else:
            self._due = None
        now = datetime.now(UTC)
        taken = CallsSnapshotTaken(session=session, agent=agent.user, at=now, http_status=answer.http_status)
        return taken, answer.body

    async def _ask(self) -> Answer:
        agent, gws = self._access.agent, self._access.gws
        if agent.login:
            await gws.start_session(agent.place)
        return await gws.calls()

    def _ask_again(self, session: UUID, fault: str) -> None:
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._tries, MOST_DOUBLINGS))
        pause = random.uniform(0.0, longest)  # noqa: S311 jitter
        self._due = asyncio.get_running_loop().time() + pause
        self._tries += 1
        extra = {"agent": self._access.agent.user, "session": str(session), "fault": fault, "pause_s": pause}
        logger.warning("no snapshot yet", extra=extra)
