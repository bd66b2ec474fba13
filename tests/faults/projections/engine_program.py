"""Runs the engine on the database that is named and says each position reached, until it is killed."""

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
        while True:
            position = min((await engine.positions()).values())
            sys.stdout.write(f"{position}\n")
            sys.stdout.flush()
            await engine.reached(position + 1, timeout_s=60)


asyncio.run(main())
