"""The tap: decides for each request what is to be known of it, and runs the server."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from service.gws import dialect
from service.log import EventLog
from service.postgres import Database
from service.tap.exchange import Exchange, FrameInterest, Interest
from service.tap.gate import Policy
from service.tap.heads import RequestHead
from service.tap.listening import parse_address
from service.tap.observing import CommandSeen, is_command
from service.tap.polling import Poll, Socket
from service.tap.protecting import Protector
from service.tap.recording import Recording
from service.tap.server import Server
from service.tap.upstream import Upstream
from service.tap.visit import Whole
from service.tap.who import Who
from service.transfers import TransferHandler

MOST_OF_ME = 1 << 20  # bytes of GWS's answer to /api/v2/me


class Tap:
    """Passes everything on to `upstream`; records what CometD delivers and what is commanded on the way.

    `listen`: ``host:port``. `cometd_path`: where CometD is. `has_session`: whether an agent is recorded
    by a session of our own, so that what CometD delivers to his application is not recorded a second time.
    """

    def __init__(
        self,
        upstream: Upstream,
        database: Database,
        log: EventLog,
        handler: TransferHandler,
        *,
        listen: str,
        policy: Policy = "pass",
        patience_s: float = 2.0,
        timeout_s: float = 10.0,
        drain_s: float = 40.0,
        cometd_path: str = dialect.NOTIFICATIONS,
        has_session: Callable[[str], bool] = lambda _: False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.upstream = upstream
        self.draining = False
        self.recording = Recording(database, log, policy, patience_s)
        self.who = Who()
        self.server = Server(self, *parse_address(listen), tls=tls)
        self._protector = Protector(upstream, handler, self.who, self.recording.gate, timeout_s=timeout_s)
        self._cometd_path = cometd_path.rstrip("/")
        self._has_session = has_session
        self._drain_s = drain_s

    async def start(self) -> None:
        """Take connections.

        Raises:
            BadConfig: the address cannot be had.

        """
        self.recording.heap.loop.start()
        self.recording.gate.loop.start()
        self.recording.loop.start()
        await self.server.start()

    async def stop(self) -> None:
        """Let every open request come to its end, and write down all that is certain."""
        self.recording.hasty = True
        await self.server.stop(self._drain_s)
        await self.recording.loop.stop()
        await self.recording.gate.loop.stop()
        await self.recording.heap.loop.stop()
        await self.recording.finish()

    @property
    def url(self) -> str:
        return self.server.url

    def status(self) -> dict[str, Any]:
        """How it stands, for the operator."""
        gate = self.recording.gate
        outage = gate.outage
        return {
            "url": self.url,
            "upstream": self.upstream.url,
            "clients": self.server.clients,
            "sessions": len(self.recording.sessions),
            "draining": self.draining,
            "when_log_fails": gate.policy,
            "recording": outage is None,
            "interrupted_since": None if outage is None else outage.since.isoformat(),
            "interrupted_by": None if outage is None else outage.cause,
            "events_recorded": gate.recorded,
            "events_not_recorded": gate.unrecorded,
        }

    # What is to be known of a request (see `service.tap.visit.Site`)

    def whole(self, request: RequestHead) -> Whole | None:
        """The transfers' door, for what may be a transfer."""
        return self._protector if self._protector.wants(request) else None

    def interest(self, request: RequestHead) -> Interest | None:
        path = request.path
        if self._is_cometd(path):
            visitor = self.who.visitor(request)
            if visitor.agent is not None and self._has_session(visitor.agent):
                return None
            self.recording.gate.check()
            return Poll(self.recording, self.who, visitor)
        if is_command(request.method, path):
            self.recording.gate.check()
            return CommandSeen(self.recording.gate, self.who.name(request))
        if path == dialect.ME and request.method == b"GET":
            return Me(self)
        return None

    def frames(self, request: RequestHead) -> FrameInterest | None:
        visitor = self.who.visitor(request)
        if not self._is_cometd(request.path) or (visitor.agent and self._has_session(visitor.agent)):
            return None
        self.recording.gate.check()
        return Socket(self.recording, visitor)

    def _is_cometd(self, path: str) -> bool:
        return path == self._cometd_path or path.startswith(self._cometd_path + "/")


class Me:
    """The interest in ``GET /api/v2/me``: it tells who is behind an HTTP session."""

    keep_request = 0
    keep_answer = MOST_OF_ME
    holds = False

    def __init__(self, tap: Tap) -> None:
        self._tap = tap

    def asked(self, exchange: Exchange) -> None: ...

    async def ended(self, exchange: Exchange) -> None:
        response, answer = exchange.response, exchange.answer
        if response is None or answer is None or not answer.done or response.status != 200:
            return
        self._tap.who.let_in(exchange.request)
        facts = self._tap.who.learn(exchange.request, response, answer.kept or b"")
        if facts:
            await self._tap.recording.gate.record(facts)
