"""The tap as a server: takes connections, lets each be served, and leaves without cutting any off."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl

from service.tap.listening import leave_to_successor, listen
from service.tap.visit import Site, Visit
from service.tap.wire import Bell, Wire

logger = logging.getLogger(__name__)

HANDOVER_S = 1.0  # between leaving the port to a successor and closing it


class Server:
    """Serves what connects to ``host:port``, each connection by a `Visit`."""

    def __init__(self, site: Site, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._site = site
        self._address = (host, port)
        self._tls = tls
        self._visits: set[asyncio.Task[None]] = set()
        self._listener: socket.socket
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self) -> None:
        """Take connections.

        Raises:
            BadConfig: the address cannot be had.

        """
        host, port = self._address
        self._listener = listen(host, port)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Wire(Bell(), self._visited), sock=self._listener, ssl=self._tls
        )
        port = self._listener.getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def clients(self) -> int:
        return len(self._visits)

    async def stop(self, drain_s: float) -> None:
        """Take no more connections, and wait until those that are open have been served, up to `drain_s`.

        Each open connection is ended with the answer to its present or its next request, which says so.
        """
        if self._server is None:
            return
        self._site.draining = True
        leave_to_successor(self._listener)
        await asyncio.sleep(min(HANDOVER_S, drain_s))
        self._server.close()
        if self._visits:
            await asyncio.wait(self._visits, timeout=drain_s)
        for visit in self._visits:
            visit.cancel()
        if self._visits:
            await asyncio.wait(self._visits)
        self._server = None

    def _visited(self, wire: Wire) -> None:
        visit = asyncio.create_task(Visit(self._site, wire).run())
        self._visits.add(visit)
        visit.add_done_callback(self._left)

    def _left(self, visit: asyncio.Task[None]) -> None:
        self._visits.discard(visit)
        if not visit.cancelled() and (error := visit.exception()) is not None:
            logger.error("a client could not be served", exc_info=error)
