"""Forks taps that can be killed: a process that has loaded everything, so that a round costs no start.

On standard input each line asks for one; its process id is answered. Arguments: database, GWS, port.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from sqlalchemy.engine import make_url
from transfer_site import DYING

from service.log import open_log
from service.postgres import open_pools
from service.tap import Tap, Upstream
from service.transfers import Settler, TransferHandler

DRAIN_S = 3.0


async def tap(database_url: str, upstream: str, port: str) -> None:
    """Be a tap until SIGTERM, then let what is open come to its end."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with (
        open_pools(make_url(database_url)) as database,
        open_log(database, max_payload_bytes=1 << 20) as log,
    ):
        handler = TransferHandler(database, log, {}, DYING)
        settler = Settler(handler)
        tap = Tap(
            Upstream(upstream),
            database,
            log,
            handler,
            listen=f"127.0.0.1:{port}",
            timeout_s=DYING.answer_s,
            drain_s=DRAIN_S,
            patience_s=10.0,
        )
        await tap.start()
        settler.loop.start()
        await stopping.wait()
        await tap.stop()
        await settler.loop.stop()
        await handler.stop()


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(tap(*sys.argv[1:]))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
