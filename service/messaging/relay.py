"""Relays the log to the broker: in order, at least once, with the position as message id.

The cursor moves after the broker has acknowledged, so a crash repeats a page and loses none. JetStream drops
a repeated `Nats-Msg-Id` within its window; any other consumer can compare the position. Consumers subscribe
through the stream: a bare subscriber that replies to what it hears would answer in JetStream's place.
"""

from __future__ import annotations

import asyncio
from typing import Any

from faststream.nats import JStream, NatsBroker

from service.events import readable
from service.log import EventLog, StoredEvent
from service.loops import Loop
from service.postgres import Database, database_errors

PAGE = 500
KEPT_BY_BROKER_S = 7 * 86_400  # the log itself keeps everything
DUPLICATES_S = 120
LEADER_LOCK = 7_232_501_146  # of our own choosing

CURSOR = "SELECT position FROM relay_cursor WHERE name = $1"
MOVE_CURSOR = """
INSERT INTO relay_cursor (name, position) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET position = excluded.position
"""


class Relay:
    """Publishes every event of `log` to ``<prefix>.log.<kind>``."""

    def __init__(self, database: Database, log: EventLog, broker: NatsBroker, prefix: str) -> None:
        self.loop = Loop("relay", self._run)
        self._database = database
        self._log = log
        self._broker = broker
        self._prefix = prefix
        self._stream = relayed_stream(prefix)

    async def declare(self) -> None:
        """Make the JetStream stream, if it is not there yet."""
        streams = self._broker.connection.jetstream()
        await streams.add_stream(self._stream.config, subjects=[f"{self._prefix}.log.>"])

    async def _run(self, loop: Loop) -> None:
        leader = await self._database.connect()
        try:
            with database_errors():
                await leader.execute("SELECT pg_advisory_lock($1)", LEADER_LOCK, timeout=None)
                after = await leader.fetchval(CURSOR, self._prefix)
            loop.beat()
            async for page in self._log.follow(after=-1 if after is None else after, limit=PAGE):
                # Written to one connection in this order; what is awaited together are the acknowledgements.
                await asyncio.gather(*(self._publish(stored) for stored in page))
                with database_errors():
                    await leader.execute(MOVE_CURSOR, self._prefix, page[-1].position)
                loop.beat()
        finally:
            leader.terminate()

    async def _publish(self, stored: StoredEvent) -> None:
        await self._broker.publish(
            document(stored),
            subject=f"{self._prefix}.log.{stored.kind}",
            headers={"Nats-Msg-Id": str(stored.position)},
            stream=self._stream.name,
            timeout=10,
        )


def relayed_stream(prefix: str) -> JStream:
    """The JetStream stream that holds the relayed log for a while; consumers subscribe to it by this."""
    return JStream(
        prefix.replace(".", "-"), max_age=KEPT_BY_BROKER_S, duplicate_window=DUPLICATES_S, declare=False
    )


def document(stored: StoredEvent) -> dict[str, Any]:
    """An event as it is relayed."""
    return {**stored.envelope(), **readable(stored.payload)}
