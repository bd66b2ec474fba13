"""Projections whose fold must know more of a key than its row shows.

The fold of such a projection goes from what it knows of a key to what it knows next; a row is made of that
only when it is written. What is known is kept in memory alone: of a key that is not in memory (it was
forgotten, or the engine has just begun) the events in its own streams are folded again, up to where the
generation has come. That is rare, and a change that no reader sees costs no write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol, runtime_checkable

from service.log import EventLog
from service.projections import sql
from service.projections.projection import Key, Projection, Row
from service.projections.reading import Page, unpacking
from service.projections.tables import Connection


@runtime_checkable
class Recalling(Protocol):
    """A projection, not versioned, with one row for each call, whose `fold` keeps more than that row."""

    def row(self, key: Key, known: Any) -> Row:
        """The row of `key`, of what the fold knows of it."""

    def reads_the_same(self, before: Any, after: Any) -> bool:
        """Whether the rows, and their parts, are the same."""

    def streams(self, key: Key) -> tuple[str, ...]:
        """The streams of all events that concern `key`; they concern no other key."""


class Recalled:
    """Brings back what a generation knows of keys."""

    def __init__(self, projection: Projection, generation: int, log: EventLog) -> None:
        assert isinstance(projection, Recalling)
        self._projection = projection
        self._streams = projection.streams
        self._generation = generation
        self._log = log

    async def known(
        self, connection: Connection, keys: Iterable[Key], upto: int, refused: Collection[int]
    ) -> dict[Key, Any]:
        """What is known of `keys` after position `upto`, without what is set aside or was just `refused`."""
        projection = self._projection
        streams = {stream: key for key in keys for stream in self._streams(key)}
        found = await connection.fetch(
            sql.READ_STREAMS, list(streams), upto, projection.name, self._generation
        )
        unpack = await unpacking(self._log, found)
        page = Page(-1, upto, [], [])
        for position, recorded_at, codec, stream, kind, payload in found:
            if kind in projection.kinds and position not in refused:
                page.take(position, recorded_at, stream, kind, unpack[codec](payload))
        known: dict[Key, Any] = {}
        for recorded in page.events:
            key = streams[recorded.stream]
            if key not in projection.keys(recorded):
                continue
            try:
                after = projection.fold(key, known.get(key), recorded)
            except Exception:  # noqa: BLE001, S112 whatever a fold raises, the others go on
                continue
            if after is not None:
                known[key] = after
        return known
