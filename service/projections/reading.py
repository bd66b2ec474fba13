"""What folds read of the log: pages of it, each event unpacked and decoded once for all projections.

Folds need neither salts nor commitments, so they are not fetched. Reading a share, Postgres leaves out what
belongs to the others, and nobody unpacks it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import md5
from typing import NamedTuple, TypeVar

import asyncpg

from service.events import PayloadRedacted
from service.log import EventLog, StoredEvent
from service.log.codec import AS_IS
from service.postgres import database_errors
from service.projections import sql
from service.projections.projection import Projection, Recorded

SLICE = 64  # events between two moments at which others in this process may go on
Item = TypeVar("Item")


class Share(NamedTuple):
    """One of `of` parts of the log: the events of the calls that fall to it, and all that are of no call."""

    number: int
    of: int

    def has(self, name: str) -> bool:
        """Whether the call `name` (or whatever a row is keyed by) falls to this share."""
        return md5(name.encode(), usedforsecurity=False).digest()[0] % self.of == self.number


WHOLE = Share(0, 1)


class Unread(NamedTuple):
    """An event that cannot be read by those who fold its kind (None: by whoever takes the page), and why."""

    position: int
    kind: str | None
    reason: str


class Page(NamedTuple):
    """The events of a share with after < position ≤ upto, in order."""

    after: int
    upto: int
    events: list[Recorded]
    unread: list[Unread]

    @classmethod
    def of(cls, events: Sequence[StoredEvent]) -> Page:
        """Some events of the log, wherever they stand."""
        page = cls(-1, -1, [], [])
        for event in events:
            page.take(event.position, event.recorded_at, event.stream, event.kind, event.payload)
        return page

    def take(self, position: int, recorded_at: datetime, stream: str, kind: str, payload: bytes) -> None:
        """Add an event, if this program knows its kind."""
        try:
            event = Recorded.of(position, recorded_at, stream, kind, payload)
        except Exception as error:  # noqa: BLE001 whatever it is, the others go on
            self.unread.append(Unread(position, kind, describe_fault(error)))
        else:
            if event is not None:
                self.events.append(event)

    def halves(self) -> tuple[Page, Page]:
        """The page as two; one of a single position is not to be halved."""
        middle = (self.after + self.upto) // 2
        first = [one for one in self.events if one.position <= middle]
        unread = [one for one in self.unread if one.position <= middle]
        return (
            Page(self.after, middle, first, unread),
            Page(middle, self.upto, self.events[len(first) :], self.unread[len(unread) :]),
        )

    def steps(self) -> Iterator[Page]:
        """The page in parts of one event each."""
        for event in self.events:
            yield Page(event.position - 1, event.position, [event], [])
        yield self._replace(events=[])

    def refused(self, error: Exception) -> Page:
        """The page with none of its events to fold, but to be set aside for `error`."""
        reason = describe_fault(error)
        return self._replace(events=[], unread=[Unread(one.position, None, reason) for one in self.events])


class Reader:
    """Reads what `projections` fold of `log`."""

    def __init__(self, log: EventLog, projections: Iterable[Projection], share: Share = WHOLE) -> None:
        self.share = share
        self._log = log
        self._kinds = frozenset({PayloadRedacted.kind()}).union(*(one.kinds for one in projections))

    async def page(self, after: int, upto: int) -> Page:
        """The page that ends at `upto`, or where the log does."""
        pool, arguments = self._log.database.pool, [after, upto]
        with database_errors():
            if self.share.of == 1:
                rows = await pool.fetch(sql.READ, *arguments)
                upto = rows[-1]["position"] if rows else after
            else:
                rows = await pool.fetch(sql.READ_SHARE, *arguments, *self.share)
            unpack = await unpacking(self._log, rows)
        page = Page(after, upto, [], [])
        take, kinds = page.take, self._kinds
        for some in slices(rows):
            for position, recorded_at, codec, stream, kind, payload in some:
                if kind in kinds:
                    take(position, recorded_at, stream, kind, unpack[codec](payload))
            await asyncio.sleep(0)
        return page


async def unpacking(log: EventLog, rows: Iterable[asyncpg.Record]) -> dict[int, Callable[[bytes], bytes]]:
    """How the payloads of `rows` are unpacked, by their codec."""
    numbers = {row["codec"] for row in rows}
    if log.codecs.missing(numbers):
        await log.codecs.load(log.database.pool)
    return {number: log.codecs[number].unpack if number != AS_IS else bytes for number in numbers}


def slices(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """`items` in parts, between which a long piece of work lets others go on."""
    return (items[start : start + SLICE] for start in range(0, len(items), SLICE))


def describe_fault(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]
