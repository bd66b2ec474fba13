"""Runs the engine on the database that is named, until it is killed."""

import asyncio
import sys

from service.log import open_log
from service.postgres import open_pools, parse_url
from service.projections import Engine, catalogue


async def main() -> None:
    async with open_pools(parse_url(sys.argv[1])) as database, open_log(database, max_payload_bytes=1) as log:
        engine = Engine(database, log, catalogue())
        engine.loop.start()
        await engine.loop.ready.wait()
        sys.stdout.write("leading\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


asyncio.run(main())
