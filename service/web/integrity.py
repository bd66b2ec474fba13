"""What pages say of the record's integrity: signed checkpoints, and the last verification of the whole."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.api.services import Services
from service.audit.verification import record, verified
from service.errors import CalltrailError
from service.events import VERIFICATION_STREAM, LogVerified, decode
from service.log.checkpoints import load_keys
from service.log.verify import verify_log
from service.postgres import database_errors

CHECKPOINTS = """
SELECT size, signed_at, encode(root, 'hex') AS root FROM log_checkpoint
ORDER BY size DESC, signed_at DESC LIMIT $1
"""


@dataclass(frozen=True)
class Verification:
    """A verification of the whole log: when it ended, and what it found."""

    at: datetime
    found: LogVerified
    position: int | None
    """Where the log itself tells of it; None if it could not be written down."""

    @property
    def intact(self) -> bool:
        return not self.found.differences


class Verifications:
    """Verifies the log when asked, one time at a time, and tells of the last."""

    def __init__(self, services: Services) -> None:
        self.progress: tuple[int, int] | None = None
        """How many of how many events are done, while one runs."""
        self.failed: str | None = None
        """Why the last try could not be brought to an end."""
        self._services = services
        self._unwritten: Verification | None = None

    async def run(self) -> None:
        """Verify; a second request while one runs changes nothing."""
        if self.progress is not None:
            return
        self.progress, self.failed = (0, 0), None
        try:
            await self._record(await self._verify())
        except CalltrailError as error:
            self.failed = str(error)
        finally:
            self.progress = None

    async def last(self) -> Verification | None:
        if self._unwritten is not None:
            return self._unwritten
        events = await self._services.log.last_of(VERIFICATION_STREAM)
        read = decode(events[0].kind, events[0].payload) if events else None
        if read is None or not isinstance(read[0], LogVerified):
            return None
        return Verification(events[0].recorded_at, read[0], events[0].position)

    async def _verify(self) -> LogVerified:
        def tell(done: int, total: int) -> None:
            self.progress = (done, total)

        keys = load_keys(self._services.settings.data_dir)
        begun = time.perf_counter()
        report = await verify_log(
            self._services.database, origin=keys.origin, trusted=keys.verifiers, progress=tell
        )
        return verified(report, time.perf_counter() - begun)

    async def _record(self, found: LogVerified) -> None:
        """Write it down; a log that was changed may take no more events, and then it is kept here."""
        self._unwritten = Verification(datetime.now(UTC), found, None)
        await record(self._services.log, found)
        self._unwritten = None


async def checkpoints(services: Services, limit: int = 20) -> list[dict[str, Any]]:
    """The newest signed checkpoints: size, root in hex, and when each was signed."""
    with database_errors():
        return [dict(row) for row in await services.database.pool.fetch(CHECKPOINTS, limit)]
