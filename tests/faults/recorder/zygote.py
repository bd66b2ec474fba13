"""Forks recorders that can be killed: a process that has loaded everything, so that a round costs no start.

On standard input each line asks for one; its process id is answered. Arguments: database, GWS, data folder,
agents, each as `Settings` and the battery have them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from test_battery import IMPATIENT, as_agents

from service.app import open_application
from service.config import Settings


async def record(database_url: str, gws_url: str, data_dir: str, users: str) -> None:
    """Record until SIGTERM, then leave the sessions to a successor."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    settings = Settings(
        database_url=database_url, gws_url=gws_url, data_dir=Path(data_dir), gws_timeout_s=1.0
    )
    async with open_application(settings, as_agents(tuple(users.split(",")))) as application:
        application.recorder.pacing = IMPATIENT
        application.recorder.start()
        await stopping.wait()
        await application.recorder.stop(keep_sessions=True)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(record(*sys.argv[1:]))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
