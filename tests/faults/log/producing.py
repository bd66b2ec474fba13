"""A process that appends with fifty producers and says what was acknowledged: ``python producing.py URL``.

Each answer is a line, written and flushed at once: ``<producer key> <count> <position>``. For each line of
standard input another event is appended, and ``mark`` is said when it is acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from contextlib import suppress

from sqlalchemy.engine import make_url

from service.errors import DatabaseError
from service.log import NewEvent, Producer, open_log
from service.postgres import open_pools

PRODUCERS = 50


async def main() -> None:
    async with (
        open_pools(make_url(sys.argv[1])) as database,
        open_log(database, max_payload_bytes=1 << 20) as log,
    ):

        async def produce(producer: Producer) -> None:
            count = 0
            while True:
                event = NewEvent(producer.event_id(count), f"session-{producer.key}", "K", b"%d" % count)
                with suppress(DatabaseError):  # unknown or not done: the same again
                    [position] = await log.append([event])
                    sys.stdout.write(f"{producer.key} {count} {position}\n")
                    sys.stdout.flush()
                    count += 1

        async def mark() -> None:
            asked = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(asked)
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
            producer = Producer.new()
            for count in itertools.count():
                await asked.readline()
                event = NewEvent(producer.event_id(count), f"session-{producer.key}", "K", b"mark")
                while True:
                    with suppress(DatabaseError):
                        await log.append([event])
                        break
                sys.stdout.write("mark\n")
                sys.stdout.flush()

        await asyncio.gather(mark(), *(produce(Producer.new()) for _ in range(PRODUCERS)))


asyncio.run(main())
