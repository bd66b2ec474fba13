"""Appending within the time that a CometD session can wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.errors import CalltrailError, DatabaseUnavailable
from service.log import EventLog, NewEvent, Statement

MAX_INTERVAL_S = 10.0  # CometD's default, where the server's advice does not say
SHARE_OF_INTERVAL = 0.4  # of the time a session lives without a poll, how much an append may take
SHORTEST_S = 0.2


class PatientLog:
    """The log for one session, which does not wait for it so long that the server gives the session up.

    An append that takes longer than `patience` seconds goes on behind our back. None other is begun before
    its end is known, so no more than one response is ever held; if it succeeds after all, the log knows the
    events when they come again.
    """

    def __init__(self, log: EventLog) -> None:
        self.patience = MAX_INTERVAL_S * SHARE_OF_INTERVAL
        self._log = log
        self._pending: asyncio.Task[CalltrailError | None] | None = None

    @property
    def busy(self) -> bool:
        """Whether the end of an append is not known yet."""
        return self._pending is not None

    def session_lives(self, max_interval: float) -> None:
        """Take up for how many seconds the server keeps a session that does not poll."""
        self.patience = max(SHORTEST_S, max_interval * SHARE_OF_INTERVAL)

    async def append(self, events: Sequence[NewEvent], also: Sequence[Statement]) -> None:
        """Append `events` and run the statements `also` with them.

        Raises:
            DatabaseError: it is not known to be durable; to be tried again with the same events.
            EventIdReused: the log has an event of the same id with other content.

        """
        if self._pending is not None:
            await self._end_of(self._pending)
        self._pending = asyncio.create_task(self._outcome(events, also))
        error = await self._end_of(self._pending)
        if error is not None:
            raise error

    async def _outcome(self, events: Sequence[NewEvent], also: Sequence[Statement]) -> CalltrailError | None:
        try:
            await self._log.append(events, also=also)
        except CalltrailError as error:
            return error
        return None

    async def _end_of(self, pending: asyncio.Task[CalltrailError | None]) -> CalltrailError | None:
        await asyncio.wait((pending,), timeout=self.patience)
        if not pending.done():
            raise DatabaseUnavailable("the log is slow")
        self._pending = None
        return pending.result()
