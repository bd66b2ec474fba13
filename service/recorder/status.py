"""Where an agent's recording stands, for people: every change is a log line with its reason."""

from __future__ import annotations

import logging
from enum import StrEnum
from uuid import UUID

logger = logging.getLogger(__name__)


class Status(StrEnum):
    """Where an agent's recording stands."""

    STARTING = "starting"
    OPEN = "open"
    RETRYING = "retrying"
    LOST = "lost"
    REFUSED = "refused"
    STOPPED = "stopped"


class Standing:
    """The status of `agent`, and why. While polls fail, an open recording counts as `retrying`."""

    def __init__(self, agent: str) -> None:
        self.status = Status.STARTING
        self._agent = agent
        self._cause = ""  # of the status
        self._fault = ""  # why requests fail, if they do since the status changed

    def change(self, status: Status, session: UUID, cause: str = "", *, expected: bool = False) -> None:
        """Take note, and tell; louder where a person may have to look."""
        self.status, self._cause, self._fault = status, cause, ""
        extra = self.told(session, cause) | {"status": status, "reason": cause}
        expected = expected or status is Status.OPEN
        logger.log(logging.INFO if expected else logging.WARNING, "session", extra=extra)

    def failing(self, session: UUID, fault: str) -> None:
        """Take note why requests fail; they are tried again."""
        self._fault = fault
        logger.warning("a request failed and is tried again", extra=self.told(session, fault))

    def crowded(self, session: UUID) -> None:
        """Take note that another client has got our cookies."""
        self._cause = "another client shares this session's cookies and slows both down"
        logger.warning("the session is crowded", extra=self.told(session, self._cause))

    def seen(self, *, retrying: bool) -> Status:
        """The status, given whether polls fail."""
        return Status.RETRYING if self.status is Status.OPEN and retrying else self.status

    def reason(self, *, retrying: bool) -> str:
        """Why the recording stands where it does, or is not going on."""
        return self._cause if self.seen(retrying=retrying) is Status.OPEN else self._fault or self._cause

    def told(self, session: UUID, fault: Exception | str) -> dict[str, object]:
        """What a log line about the agent carries."""
        return {"agent": self._agent, "session": str(session), "fault": str(fault)}
