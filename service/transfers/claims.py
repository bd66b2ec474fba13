"""This process's claims on the transfers that it sends.

A claim is a row of `transfer_work` with this process's token. It is good for `Timing.lease_s` and renewed
while the work runs. Whether it still holds is asked as the last step before the first byte leaves: in the
database (has somebody taken it over?) and by this process's own clock (was it stopped for so long that
somebody may have?).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from uuid import UUID

from service.errors import DatabaseError
from service.postgres import database_errors
from service.transfers import work
from service.transfers.journal import Journal

logger = logging.getLogger(__name__)

LOOKS = 3  # in one lease, whether claims are to be renewed


class Claims:
    """Claims of `journal.owner`, each until a moment of the event loop's clock."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._until: dict[UUID, float] = {}
        self._renewing: asyncio.Task[None] | None = None

    def hold(self, transfer_id: UUID, since: float) -> None:
        """Take note of a claim; `since` is the loop's time before it was made, so that we end first."""
        self._until[transfer_id] = since + self._journal.timing.lease_s
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="transfer claims")

    def drop(self, transfer_id: UUID) -> None:
        """Forget a claim: its work is done, and in the database too."""
        self._until.pop(transfer_id, None)

    async def stop(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing

    async def holds(self, transfer_id: UUID) -> bool:
        """Whether the claim still holds. Nothing is awaited between the clock's word and the return."""
        try:
            with database_errors():
                held = await self._journal.database.pool.fetchval(
                    work.HOLDS, transfer_id, self._journal.owner
                )
        except DatabaseError:
            return False
        return bool(held) and asyncio.get_running_loop().time() < self._until.get(transfer_id, 0.0)

    async def _renew(self) -> None:
        """Renew what is half over, while there is anything."""
        loop, lease_s = asyncio.get_running_loop(), self._journal.timing.lease_s
        while self._until:
            await asyncio.sleep(lease_s / LOOKS)
            asked_at = loop.time()
            aging = [one for one, until in self._until.items() if until - asked_at < lease_s / 2]
            if not aging:
                continue
            try:
                with database_errors():
                    rows = await self._journal.database.pool.fetch(
                        work.RENEW, self._journal.owner, aging, lease_s
                    )
            except DatabaseError as error:
                logger.warning("claims could not be renewed", extra={"fault": str(error)})
                continue
            renewed = {row["transfer_id"]: asked_at + lease_s for row in rows}
            self._until |= {one: until for one, until in renewed.items() if one in self._until}
