"""The event log's one door: append, read, follow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from typing import Any

import asyncpg
import msgspec

from service.errors import DatabaseError
from service.log import sql
from service.log.append import Appender
from service.log.codec import Codecs
from service.log.event import PAYLOAD_REDACTED, Condition, NewEvent, Statement, StoredEvent
from service.log.ids import Producer
from service.log.watch import HeadWatch
from service.postgres import Database, database_errors

END = (1 << 63) - 1
PAGE = 1_000


class EventLog:
    """Append-only, totally ordered events. Open it with `open_log`."""

    def __init__(self, database: Database, *, max_payload_bytes: int) -> None:
        self.watch = HeadWatch(database)
        self.codecs = Codecs()
        self.database = database
        self._appender = Appender(database, self.watch, self.codecs, max_payload_bytes=max_payload_bytes)

    async def start(self) -> None:
        self.watch.start()
        await self._appender.start()

    async def stop(self) -> None:
        await self._appender.stop()
        await self.watch.stop()

    async def append(
        self,
        events: Sequence[NewEvent],
        *,
        conditions: Sequence[Condition] = (),
        also: Sequence[Statement] = (),
    ) -> list[int]:
        """Append `events` together; see `Appender.append`."""
        return await self._appender.append(events, conditions=conditions, also=also)

    async def redact(
        self,
        payloads: Mapping[int, bytes],
        fact: Mapping[str, object],
        *,
        stream: str,
        conditions: Sequence[Condition] = (),
    ) -> int:
        """Replace the payloads at these positions for good and destroy their salts; the tree stays as it is.

        A `PayloadRedacted` with the fields of `fact`, each position and the SHA-256 of what stands there
        since goes into `stream` in the same transaction, and its position is returned. `verify` reports what
        it finds redacted, and takes any other change for a forgery.
        """
        events = [(position, sha256(payload).hexdigest()) for position, payload in sorted(payloads.items())]
        [position] = await self.append(
            [
                NewEvent(
                    Producer.new().key,
                    stream,
                    PAYLOAD_REDACTED,
                    msgspec.json.encode({"v": 1, **fact, "events": events}),
                )
            ],
            conditions=conditions,
            also=[
                Statement(sql.REDACT, {"position": position, "payload": payload})
                for position, payload in sorted(payloads.items())
            ],
        )
        return position

    async def next_position(self) -> int:
        """The position that the next event will get: how many events there are."""
        with database_errors():
            position: int = await self.database.pool.fetchval(sql.HEAD)
        self.watch.advance(position)
        return position

    async def read(
        self,
        *,
        after: int = -1,
        upto: int = END,
        limit: int = PAGE,
        stream: str | None = None,
        kinds: Sequence[str] | None = None,
    ) -> list[StoredEvent]:
        """The first `limit` events with after < position ≤ upto, in order; of one stream or some kinds."""
        if stream is not None:
            return await self._fetch(sql.READ_STREAM, after, upto, limit, stream)
        if kinds is not None:
            return await self._fetch(sql.READ_KINDS, after, upto, limit, list(kinds))
        return await self._fetch(sql.READ, after, upto, limit)

    async def read_others(
        self, apart_from: Sequence[str], *, after: int = -1, limit: int = PAGE
    ) -> list[StoredEvent]:
        """The first `limit` events after a position of streams whose prefix is none of `apart_from`."""
        return await self._fetch(sql.READ_OTHERS, after, limit, list(apart_from))

    async def read_stream(self, stream: str, *, after: int = -1) -> list[StoredEvent]:
        """All events of `stream` after a position."""
        events: list[StoredEvent] = []
        while page := await self.read(stream=stream, after=events[-1].position if events else after):
            events += page
            if len(page) < PAGE:
                break
        return events

    async def last_of(self, stream: str, *, limit: int = 1) -> list[StoredEvent]:
        """The newest `limit` events of `stream`, newest first."""
        return await self._fetch(sql.READ_STREAM_BACKWARDS, stream, limit)

    async def at(self, positions: Sequence[int]) -> list[StoredEvent]:
        """The events at `positions`, in the order of the log."""
        return await self._fetch(sql.READ_POSITIONS, list(positions))

    async def position_at(self, moment: datetime) -> int:
        """The last position recorded at or before `moment`; -1 if there is none."""
        with database_errors():
            position: int = await self.database.pool.fetchval(sql.POSITION_AT, moment)
        return position

    async def follow(self, *, after: int, limit: int = PAGE) -> AsyncIterator[list[StoredEvent]]:
        """Pages of everything after a position, for ever, in order and without holes."""
        while True:
            page = await self.read(after=after, limit=limit)
            if page:
                after = page[-1].position
                yield page
            else:
                await self.watch.beyond(after)

    async def _fetch(self, statement: str, *arguments: object) -> list[StoredEvent]:
        with database_errors():
            rows = await self.database.pool.fetch(statement, *arguments)
        try:
            return stored_events(rows, self.codecs)
        except KeyError:
            with database_errors():
                await self.codecs.load(self.database.pool)
        try:
            return stored_events(rows, self.codecs)
        except KeyError as error:
            raise DatabaseError(f"a payload is stored with codec {error}, which is not there") from None


def stored_events(rows: Sequence[asyncpg.Record], codecs: Codecs) -> list[StoredEvent]:
    """The events of rows of `sql.COLUMNS`. Raises `KeyError` for a codec that has not been loaded."""
    unpack = codecs.unpackers()
    return [
        StoredEvent(position, recorded_at, event_id, stream, kind, salt, commitment, unpack[codec](stored))
        for position, recorded_at, event_id, codec, stream, kind, salt, commitment, stored in rows
    ]


@asynccontextmanager
async def open_log(database: Database, **settings: Any) -> AsyncIterator[EventLog]:
    """Open the log on `database`; what has been handed over by then is written before it closes."""
    log = EventLog(database, **settings)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()
