"""Legal holds: while one covers a call, nothing of it is redacted.

A hold is two events in the stream `legal-holds`, its placing and its release. Those that stand are folded
from it, so a redaction that has seen them can make "no event since" a condition of its append.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from service.errors import BadInput, NotFound
from service.events import Event, LegalHoldPlaced, LegalHoldReleased, decode, encode
from service.log import Condition, EventLog, NewEvent, Producer

STREAM = "legal-holds"


class Scope(NamedTuple):
    """The calls that a hold covers: those that fit every field that is not None; with none, all."""

    call_id: str | None = None
    agent: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Hold:
    """A hold with its time and, once it is over, its release."""

    placed: LegalHoldPlaced
    placed_at: datetime
    released: LegalHoldReleased | None = None
    released_at: datetime | None = None

    def covers(self, call_id: str, agents: Collection[str], times: Sequence[datetime]) -> bool:
        """Whether it covers a call whose events name `agents` and were recorded at `times`."""
        hold = self.placed
        return (
            self.released is None
            and hold.call_id in {None, call_id}
            and (hold.agent is None or hold.agent in agents)
            and any(
                (hold.since is None or at >= hold.since) and (hold.until is None or at <= hold.until)
                for at in times
            )
        )


class Holds(NamedTuple):
    """All holds, in the order in which they were placed, and where their stream ends."""

    holds: Sequence[Hold]
    version: int

    def unchanged(self) -> Condition:
        """Holds while no hold has been placed or released since."""
        return Condition(STREAM, self.version)


async def list_holds(log: EventLog) -> Holds:
    holds: dict[UUID, Hold] = {}
    version = -1
    for stored in await log.read_stream(STREAM):
        version = stored.position
        match decode(stored.kind, stored.payload):
            case (LegalHoldPlaced() as placed, _):
                holds[placed.hold_id] = Hold(placed, stored.recorded_at)
            case (LegalHoldReleased() as released, _):
                begun = holds[released.hold_id]
                holds[released.hold_id] = Hold(begun.placed, begun.placed_at, released, stored.recorded_at)
    return Holds(list(holds.values()), version)


async def place_hold(log: EventLog, case: str, scope: Scope, *, who: str, why: str) -> LegalHoldPlaced:
    """Place a hold and return it once it is durable.

    Raises:
        BadInput: case, who or why is empty, or the time range is.

    """
    require(case=case, by=who, why=why)
    if scope.since is not None and scope.until is not None and scope.until < scope.since:
        raise BadInput("until", "is before since", "Give a time range from earlier to later")
    hold = LegalHoldPlaced(Producer.new().key, case, who, why, *scope)
    await append(log, hold)
    return hold


async def release_hold(
    log: EventLog, hold_id: UUID, *, who: str, why: str, approved_by: str | None = None
) -> LegalHoldReleased:
    """Release a hold; one that is released already stays as it was, and its release is returned.

    Raises:
        NotFound: there is no such hold.
        BadInput: who or why is empty, or who released it also approved it.

    """
    require(by=who, why=why)
    check_approval(who, approved_by)
    known = await list_holds(log)
    hold = next((one for one in known.holds if one.placed.hold_id == hold_id), None)
    if hold is None:
        raise NotFound(f"there is no hold {hold_id}")
    if hold.released is not None:
        return hold.released
    release = LegalHoldReleased(hold_id, who, why, approved_by)
    await append(log, release, known.unchanged())
    return release


async def append(log: EventLog, event: Event, *conditions: Condition) -> None:
    new = NewEvent(Producer.new().key, STREAM, event.kind(), encode(event))
    await log.append([new], conditions=conditions)


def require(**texts: str) -> None:
    """Refuse texts that say nothing, by their name."""
    for name, text in texts.items():
        if not text.strip():
            raise BadInput(name, "is empty", "Write it out: it goes on record")


def check_approval(who: str, approved_by: str | None) -> None:
    """Refuse an approval by the one who asks."""
    if approved_by is not None and approved_by.strip() in {"", who.strip()}:
        raise BadInput("approved_by", "is the one who asks, or nobody", "Let a second person approve")
