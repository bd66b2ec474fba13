"""A model of a CometD server in memory, a network that fails on purpose, and time that costs nothing.

The server keeps what it published, and when, and what it deleted as acknowledged: the truth that a client is
measured against. It follows the acknowledgement extension as CometD's servers have it: a FIFO of events, each
tagged with the batch open when it was queued; a connect with ack A deletes the batches up to A from its head;
a connect response closes a batch, carries all that is left and the batch's number. Without the extension,
whatever response comes first carries the queue, and what was written is gone.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from service.cometd import Cookies, Purpose
from service.errors import TransportFailed

CHANNEL = "/v2/me/calls"
TIMEOUT = 20.0
MAX_INTERVAL = 10.0


class _NoSelector(selectors.SelectSelector):
    """Waits for nothing: when the loop would sleep, its time moves on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("everything waits for something that never comes")
            self.slept += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is to be done."""

    def __init__(self) -> None:
        self._virtual = _NoSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.slept


def wall() -> float:
    """The wall clock of the model, which runs with the loop."""
    return asyncio.get_running_loop().time() + 1_000_000.0


@dataclass
class _Session:
    client_id: str
    ack: bool
    subscribed: bool = False
    queue: list[tuple[int, int]] = field(default_factory=list)  # (event, batch open when it was queued)
    batch: int = 1
    held: asyncio.Future[str] | None = None
    expiry: asyncio.TimerHandle | None = None


class Server:
    """The server. `on_acknowledged` is called with each event that is deleted as acknowledged."""

    def __init__(self, *, ack: bool, events_first: bool, on_acknowledged: Callable[[int], None]) -> None:
        self.ack = ack
        self.events_first = events_first
        self.on_acknowledged = on_acknowledged
        self.published: list[tuple[int, float]] = []
        self.most_held = 0
        self._sessions: dict[str, _Session] = {}
        self._made = 0
        self.goodbye = False

    def publish(self) -> None:
        number = len(self.published)
        self.published.append((number, wall()))
        for session in list(self._sessions.values()):
            if session.subscribed:
                session.queue.append((number, session.batch))
                if session.held is not None and not session.held.done():
                    session.held.set_result("events")

    def restart(self) -> None:
        for session in list(self._sessions.values()):
            self._end(session)

    async def handle(self, body: bytes) -> bytes:
        """Answer one request. Raises `TransportFailed` with the HTTP status of a superseded poll."""
        replies: list[dict[str, Any]] = []
        session: _Session | None = None
        for message in json.loads(body):
            session, reply = await self._answer(message)
            replies.append({"id": message["id"], "channel": message["channel"], **reply})
        events = self._take(session, replies) if session is not None else []
        if self.goodbye and session is not None and session.client_id in self._sessions:
            self.goodbye = False
            self._end(session)
            replies.append({"channel": "/meta/disconnect", "successful": True})
        elif session is not None:
            self._start_clock(session)
        return json.dumps(events + replies if self.events_first else replies + events).encode()

    async def _answer(self, message: dict[str, Any]) -> tuple[_Session | None, dict[str, Any]]:
        channel = message["channel"]
        if channel == "/meta/handshake":
            self._made += 1
            session = _Session(f"client{self._made}", self.ack and message.get("ext", {}).get("ack") is True)
            self._sessions[session.client_id] = session
            ext = {"ext": {"ack": True}} if session.ack else {}
            advice = {"reconnect": "retry", "interval": 0, "timeout": int(TIMEOUT * 1000)}
            return session, {"successful": True, "clientId": session.client_id, "advice": advice, **ext}
        found = self._sessions.get(message["clientId"])
        if found is None:
            advice = {"advice": {"reconnect": "handshake"}} if channel == "/meta/connect" else {}
            return None, {"successful": False, "error": "402::session_unknown", **advice}
        if channel == "/meta/subscribe":
            found.subscribed = True
        elif channel == "/meta/disconnect":
            self._end(found)
        elif channel == "/meta/connect":
            return await self._connect(found, message)
        return found, {"successful": True}

    async def _connect(
        self, session: _Session, message: dict[str, Any]
    ) -> tuple[_Session | None, dict[str, Any]]:
        if session.held is not None and not session.held.done():
            session.held.set_result("superseded")
        self._stop_clock(session)
        if session.ack:
            acked = message.get("ext", {}).get("ack", -1)
            while session.queue and session.queue[0][1] <= acked:
                self.on_acknowledged(session.queue.pop(0)[0])
        if not session.queue and message.get("advice", {}).get("timeout") != 0:
            session.held = asyncio.get_running_loop().create_future()
            self.most_held = max(self.most_held, sum(1 for each in self._sessions.values() if each.held))
            mine = session.held
            try:
                async with asyncio.timeout(TIMEOUT):
                    why = await mine
            except TimeoutError:
                why = "time"
            if why == "superseded":
                raise TransportFailed("HTTP 500", status=500)
            if session.held is mine:
                session.held = None
            if why == "ended":
                return None, {"successful": False, "error": "402::session_unknown"}
        return session, {"successful": True}

    def _take(self, session: _Session, replies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Take the events that this response carries."""
        if session.ack:
            if replies[0]["channel"] != "/meta/connect":
                return []
            replies[0]["ext"] = {"ack": session.batch}
            session.batch += 1
            carried = [number for number, _ in session.queue]
        else:
            carried = [number for number, _ in session.queue]
            session.queue.clear()
        return [{"channel": CHANNEL, "data": number} for number in carried]

    def _start_clock(self, session: _Session) -> None:
        self._stop_clock(session)
        if session.client_id in self._sessions:
            loop = asyncio.get_running_loop()
            session.expiry = loop.call_later(MAX_INTERVAL, self._end, session)

    def _stop_clock(self, session: _Session) -> None:
        if session.expiry is not None:
            session.expiry.cancel()
            session.expiry = None

    def _end(self, session: _Session) -> None:
        self._stop_clock(session)
        self._sessions.pop(session.client_id, None)
        if session.held is not None and not session.held.done():
            session.held.set_result("ended")


FAULTS = (
    "none",
    "refused",  # no connection
    "lost request",
    "lost response",
    "cut",
    "garbled",
    "late",  # given up by the client while the server still holds it
    "503 before",
    "503 after",
    "restart",
    "goodbye",
)


class Network:
    """A transport that fails as the schedule says, one entry for each request; then it works."""

    connection_type = "long-polling"
    streaming = False

    def __init__(self, server: Server, faults: Iterator[str], rng: random.Random) -> None:
        self.cookies = Cookies()
        self._server = server
        self._faults = faults
        self._rng = rng
        self._left_behind: set[asyncio.Task[bytes]] = set()

    async def send(self, body: bytes, purpose: Purpose, wait: float) -> bytes:  # noqa: ARG002 - the body says it
        fault = next(self._faults, "none")
        await self._before(fault, body, wait)
        served = asyncio.create_task(self._server.handle(body))
        try:
            answer = await asyncio.shield(served)
        except asyncio.CancelledError:
            self._leave(served)  # the server does not notice
            raise
        return self._after(fault, answer)

    async def _before(self, fault: str, body: bytes, wait: float) -> None:
        """Do what befalls a request on its way."""
        match fault:
            case "refused":
                raise TransportFailed("no connection", sent=False)
            case "lost request":
                await asyncio.sleep(wait)
                raise TransportFailed("no answer within the time allowed")
            case "503 before":
                raise TransportFailed("HTTP 503", status=503)
            case "late":
                self._leave(asyncio.create_task(self._server.handle(body)))
                await asyncio.sleep(self._rng.uniform(0.0, wait))
                raise TransportFailed("no answer within the time allowed")
            case "restart":
                self._server.restart()
            case "goodbye":
                self._server.goodbye = True

    def _after(self, fault: str, answer: bytes) -> bytes:
        """Do what befalls a response on its way."""
        match fault:
            case "lost response":
                raise TransportFailed("the answer broke off")
            case "503 after":
                raise TransportFailed("HTTP 503", status=503)
            case "cut":
                return answer[: self._rng.randrange(len(answer))]
            case "garbled":
                at = self._rng.randrange(len(answer))
                return answer[:at] + b"\xff" + answer[at + 1 :]
            case _:
                return answer

    async def receive(self, wait: float) -> bytes:
        raise AssertionError(f"nothing comes unasked in {wait} s")

    async def close(self) -> None:
        pass

    def _leave(self, served: asyncio.Task[bytes]) -> None:
        self._left_behind.add(served)
        served.add_done_callback(_ignore)


def _ignore(task: asyncio.Task[bytes]) -> None:
    if not task.cancelled():
        task.exception()
