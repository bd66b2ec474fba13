"""That the whole log was verified, as an event of the log: when, and what was found."""

from __future__ import annotations

from service.events import VERIFICATION_STREAM, LogVerified, encode
from service.log import EventLog, NewEvent, Producer
from service.log.verify import Report

MOST_DIFFERENCES = 20


def verified(report: Report, seconds: float) -> LogVerified:
    """The event of a verification that took `seconds`."""
    return LogVerified(
        size=report.size,
        root=report.root.hex(),
        seconds=round(seconds, 3),
        checkpoints=report.checkpoints,
        redacted=tuple(report.redacted),
        differences=tuple(
            (one.position, one.kind.value, one.what) for one in report.differences[:MOST_DIFFERENCES]
        ),
    )


async def record(log: EventLog, found: LogVerified) -> int:
    """Write it down; returns the position.

    Raises:
        CalltrailError: the log takes no more events, as one that was changed may not.

    """
    event = NewEvent(Producer.new().event_id(0), VERIFICATION_STREAM, found.kind(), encode(found))
    [position] = await log.append([event])
    return position
