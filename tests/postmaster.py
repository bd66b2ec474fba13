"""Killing the server process of an embedded Postgres, and knowing when it is gone."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from service.postgres.embedded import EmbeddedPostgres

WAIT_S = 60


class Postmaster:
    """The postmaster that is running now. Until it is gone its children may still answer."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.pid = int((server.cluster / "postmaster.pid").read_text().split()[0])

    def kill(self, how: signal.Signals) -> None:
        """SIGQUIT is `pg_ctl -m immediate`, SIGINT `-m fast`; SIGKILL takes the children too, at once."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        os.kill(self.pid, how)
        if how is signal.SIGKILL:
            for child in children:
                try:
                    os.kill(int(child), how)
                except ProcessLookupError:
                    continue

    def is_gone(self, *, within_s: float = 0) -> bool:
        try:
            alive = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([alive], [], [], within_s)[0])
        finally:
            os.close(alive)

    def end(self, how: signal.Signals) -> None:
        """Kill it and wait until it is gone."""
        self.kill(how)
        assert self.is_gone(within_s=WAIT_S), "Postgres outlives its killing"
