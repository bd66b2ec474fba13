"""A CometD server: Bayeux 1.0 over long polling, with the acknowledgement extension. No sockets here.

The web server hands in the body of a request and gets a `Reply`; a held `/meta/connect` is the one place
that waits, on one future. Facts: document `cometd-bayeux`, sections 1 to 6.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import msgspec

from service.simulator.faults import (
    COMETD_REQUEST_KINDS,
    COMETD_RESPONSE_KINDS,
    NOTIFICATION_KINDS,
    Fault,
    Faults,
)
from service.simulator.messages import encode
from service.simulator.options import Options
from service.simulator.truth import Delivery, Published, SessionTruth, Truth

Woken = Literal["events", "timeout", "superseded", "ended", "dropped", "stopped"]
"""Why a held connect is let go."""

NOT_ANSWERED: dict[Woken, int] = {"superseded": 500, "dropped": 0, "stopped": 503}
"""The held connects that get no Bayeux reply, and their HTTP status (0: the connection breaks)."""

COOKIE = "BAYEUX_BROWSER"


@dataclass(slots=True)
class Reply:
    """What is to be answered to a request.

    `status` 0: nothing, the connection is to be dropped. `browser`: a new value of the BAYEUX_BROWSER
    cookie. `deliveries`: the queued messages that the body carries. `fault`: one that harms the response.
    """

    status: int
    body: bytes = b""
    browser: str | None = None
    deliveries: list[Delivery] = field(default_factory=list)
    fault: Fault | None = None


@dataclass(slots=True, eq=False)
class Session:
    """A client. `queue` holds (batch, delivery): without ack the batch is always 0."""

    client_id: str
    agent: str
    browser: str
    truth: SessionTruth
    ack: bool = False
    batch: int = 0
    subscriptions: frozenset[str] = frozenset()
    queue: deque[tuple[int, Delivery]] = field(default_factory=deque)
    held: "asyncio.Future[Woken] | None" = None
    held_back: Delivery | None = None

    def wake(self, why: Woken) -> None:
        if self.held is not None and not self.held.done():
            self.held.set_result(why)

    def acknowledge(self, batch: int, now: float) -> None:
        """Forget the messages of all batches up to this one."""
        while self.queue and self.queue[0][0] <= batch:
            self.queue.popleft()[1].acknowledged_at = now

    def take(self) -> list[Delivery]:
        """Give the messages for a response. With ack they stay until they are acknowledged."""
        taken = [delivery for _, delivery in self.queue]
        if self.ack:
            self.batch += 1
        else:
            self.queue.clear()
        return taken


@dataclass(slots=True)
class Exchange:
    """One request being answered. `connected` is the reply to its connect, if it was a good one."""

    agent: str
    browser: str | None
    messages: list[dict[str, Any]]
    replies: list[dict[str, Any]] = field(default_factory=list)
    session: Session | None = None
    connected: dict[str, Any] | None = None
    new_browser: str | None = None

    @property
    def operation(self) -> str:
        """The first message's kind: handshake, connect, subscribe, ..."""
        return str(self.messages[0].get("channel", "")).removeprefix("/meta/") if self.messages else ""


@lru_cache(maxsize=1024)
def patterns_for(channel: str) -> frozenset[str]:
    """Every subscription that covers a channel: the name itself, and the patterns of its parents."""
    parts = channel.split("/")
    parents = ["/".join(parts[:end]) for end in range(1, len(parts))]
    return frozenset({channel, f"{parents[-1]}/*", *(f"{parent}/**" for parent in parents)})


class Bayeux:
    """All CometD sessions. Times inside are of `time.monotonic`, those in the truth of `clock`."""

    def __init__(self, options: Options, faults: Faults, truth: Truth, clock: Callable[[], float]) -> None:
        self.sessions: dict[str, Session] = {}
        self._by_agent: dict[str, dict[str, Session]] = {}
        self._idle_since: dict[str, float] = {}
        self._holders: dict[str, Session] = {}
        self._options = options
        self._faults = faults
        self._truth = truth
        self._clock = clock
        self._rng = random.Random(f"{options.seed}/bayeux")

    # Publishing and ending

    def publish(
        self,
        agent: str,
        channel: str,
        body: bytes,
        *,
        call_id: str | None = None,
        state: str | None = None,
    ) -> Published:
        """Queue a message for every session of an agent that has subscribed to its channel."""
        published = Published(self._clock(), agent, channel, body, call_id, state)
        self._truth.published.append(published)
        listening = [
            session
            for session in self.sessions_of(agent)
            if not session.subscriptions.isdisjoint(patterns_for(channel))
        ]
        fault = self._faults.take(NOTIFICATION_KINDS, state or "", agent, call_id) if listening else None
        if fault and fault.kind == "lose_notification":
            published.lost = True
            return published
        for session in listening:
            self._queue(session, channel, body, fault)
            published.sessions.append(session.client_id)
        return published

    def _queue(self, session: Session, channel: str, body: bytes, fault: Fault | None) -> None:
        delivery = Delivery(self._clock(), channel, body)
        if fault and fault.kind == "reorder_notification":
            session.held_back = delivery
            return
        arriving = [delivery]
        if fault:
            arriving.append(Delivery(self._clock(), channel, body))
        if session.held_back is not None:
            arriving.append(session.held_back)
            session.held_back = None
        for one in arriving:
            session.truth.messages.append(one)
            session.queue.append((session.batch + 1 if session.ack else 0, one))
        session.wake("events")

    def sessions_of(self, agent: str) -> list[Session]:
        return list(self._by_agent.get(agent, {}).values())

    def end(self, session: Session, because: str, why: Woken = "ended") -> None:
        """Forget a session and its queue, and let its held poll go."""
        if self.sessions.pop(session.client_id, None) is None:
            return
        del self._by_agent[session.agent][session.client_id]
        self._idle_since.pop(session.client_id, None)
        session.truth.ended_at = self._clock()
        session.truth.ended_because = because
        session.wake(why)

    def end_all(self, because: str, why: Woken) -> None:
        for session in list(self.sessions.values()):
            self.end(session, because, why)

    def sweep(self) -> None:
        """End the sessions that have been without a connect for `interval + maxInterval`."""
        limit = time.monotonic() - (self._options.interval_ms + self._options.max_interval_ms) / 1000
        for client_id, since in list(self._idle_since.items()):
            if since > limit:
                break  # the dictionary is in order of time
            self.end(self.sessions[client_id], "expired")

    # Requests

    async def handle(self, agent: str, browser: str | None, body: bytes) -> Reply:
        """Process the body of one POST. `agent` is who sent it, `browser` the cookie that came with it."""
        try:
            messages = msgspec.json.decode(body, type=list[dict[str, Any]])
        except msgspec.DecodeError:
            return Reply(400)
        exchange = Exchange(agent, browser, messages)
        fault = self._faults.take(COMETD_REQUEST_KINDS, exchange.operation, agent)
        if fault and fault.kind == "lose_request":
            return Reply(0)
        for message in messages:
            channel = str(message.get("channel", ""))
            if channel == "/meta/handshake":
                exchange.replies.append(self._handshake(exchange, message))
                continue
            session = exchange.session = self._find(exchange, message)
            if session and fault:
                self.end(session, "killed")
                session = exchange.session = None
            if session is None:
                exchange.replies.append(_unknown_session(message, channel))
            elif channel == "/meta/connect":
                woken = await self._connect(session, message, alone=len(messages) == 1)
                if woken in NOT_ANSWERED:
                    return Reply(NOT_ANSWERED[woken])
                exchange.replies.append(self._connected(exchange, session, message))
            else:
                exchange.replies.append(self._other(session, message, channel))
        return self._finish(exchange)

    def _handshake(self, exchange: Exchange, message: dict[str, Any]) -> dict[str, Any]:
        answer = _answer(message, "/meta/handshake")
        if "long-polling" not in message.get("supportedConnectionTypes", ()):
            error = {"successful": False, "error": "400::No common connection type"}
            return answer | error | {"advice": {"reconnect": "none"}}
        options = self._options
        ack = options.ack and bool(message.get("ext", {}).get("ack"))
        client_id = f"{self._rng.getrandbits(128):032x}"
        agent, browser = exchange.agent, exchange.browser
        if browser is None:
            exchange.new_browser = browser = f"{self._rng.getrandbits(96):024x}"
        truth = SessionTruth(client_id, agent, ack, self._clock())
        session = Session(client_id, agent, browser, truth, ack)
        self._truth.sessions[client_id] = truth
        self.sessions[client_id] = session
        self._by_agent.setdefault(agent, {})[client_id] = session
        self._idle_since[client_id] = time.monotonic()
        answer |= {
            "successful": True,
            "clientId": client_id,
            "version": "1.0",
            "minimumVersion": "1.0",
            "supportedConnectionTypes": ["long-polling"],
            "advice": self._advice(),
        }
        if ack:
            answer["ext"] = {"ack": {"enabled": True, "batch": 0} if options.ack_as_object else True}
        return answer

    def _find(self, exchange: Exchange, message: dict[str, Any]) -> Session | None:
        """Only who has the client id, the cookie and the user of the handshake finds the session."""
        session = self.sessions.get(str(message.get("clientId")))
        if session is None or (session.browser, session.agent) != (exchange.browser, exchange.agent):
            return None
        return session

    async def _connect(self, session: Session, message: dict[str, Any], *, alone: bool) -> Woken:
        """Acknowledge, then hold the poll until there is something to say."""
        acknowledged = message.get("ext", {}).get("ack")
        if session.ack and isinstance(acknowledged, int):
            session.acknowledge(acknowledged, self._clock())
        session.wake("superseded")
        self._idle_since.pop(session.client_id, None)
        timeout_ms = message.get("advice", {}).get("timeout", self._options.timeout_ms)
        if session.queue or not alone or timeout_ms == 0 or self._is_crowded(session):
            return "events"
        held: asyncio.Future[Woken] = asyncio.get_running_loop().create_future()
        session.held = held
        timer = asyncio.get_running_loop().call_later(timeout_ms / 1000, session.wake, "timeout")
        self._holders[session.browser] = session
        try:
            return await held
        finally:
            timer.cancel()
            if session.held is held:
                session.held = None
                del self._holders[session.browser]

    def _is_crowded(self, session: Session) -> bool:
        """Tell whether another session of the same browser holds the one poll that a browser may hold."""
        return self._holders.get(session.browser, session) is not session

    def _connected(self, exchange: Exchange, session: Session, message: dict[str, Any]) -> dict[str, Any]:
        if session.client_id not in self.sessions:
            left = session.truth.ended_because == "disconnected"
            return _unknown_session(message, "/meta/connect", "none" if left else "handshake")
        answer = _answer(message, "/meta/connect") | {"successful": True, "advice": self._advice()}
        exchange.connected = answer
        if self._is_crowded(session):
            interval = self._options.multi_session_interval_ms
            answer["advice"] |= {"interval": interval, "multiple-clients": True}
        return answer

    def _other(self, session: Session, message: dict[str, Any], channel: str) -> dict[str, Any]:
        answer = _answer(message, channel)
        if channel in ("/meta/subscribe", "/meta/unsubscribe"):
            given = message.get("subscription", [])
            names = {given} if isinstance(given, str) else set(given)
            if not names or not all(isinstance(name, str) and name.startswith("/") for name in names):
                return answer | {"successful": False, "error": "400::Invalid subscription"}
            if channel == "/meta/subscribe":
                session.subscriptions |= names
            else:
                session.subscriptions -= names
            return answer | {"successful": True, "subscription": given}
        if channel == "/meta/disconnect":
            self.end(session, "disconnected")
            return answer | {"successful": True}
        if channel.startswith("/meta/") or not channel.startswith("/"):
            return answer | {"successful": False, "error": "400::Unknown channel"}
        return answer | {"successful": False, "error": "403::Publish denied"}

    def _finish(self, exchange: Exchange) -> Reply:
        """Add the events and the faults, and write the body."""
        session, replies, connected = exchange.session, exchange.replies, exchange.connected
        reply = Reply(200, browser=exchange.new_browser)
        carries = session is not None and (
            connected is not None or not (session.ack or self._options.deliver_on_connect_only)
        )
        pending = bool(session and carries and session.queue)
        reply.fault = fault = self._faults.take(
            COMETD_RESPONSE_KINDS, exchange.operation, exchange.agent, events=pending
        )
        if fault and fault.kind == "advice":
            replies[-1]["advice"] = self._advice() | {
                "reconnect": fault.reconnect,
                "interval": fault.interval_ms,
            }
            if session and fault.reconnect != "retry":
                replies[-1] |= {"successful": False, "error": "402::Unknown client"}
                self.end(session, f"advice {fault.reconnect}")
        elif fault and fault.kind == "server_disconnect" and session:
            replies.append({"channel": "/meta/disconnect", "clientId": session.client_id, "successful": True})
            self.end(session, "server disconnect")
        if session and carries and session.client_id in self.sessions:
            reply.deliveries = session.take()
            if connected is not None:
                if session.ack:
                    connected["ext"] = {"ack": session.batch}
                self._idle_since.pop(session.client_id, None)
                self._idle_since[session.client_id] = time.monotonic()
        reply.body = self._write(replies, reply.deliveries, fault)
        return reply

    def _write(self, replies: Iterable[dict[str, Any]], events: list[Delivery], fault: Fault | None) -> bytes:
        bodies = [event.body for event in events]
        if fault and fault.kind == "duplicate_events":
            bodies = [body for body in bodies for _ in range(2)]
        if fault and fault.kind == "reverse_events":
            bodies.reverse()
        answers = [encode(one) for one in replies]
        ordered = bodies + answers if self._options.events_first else answers + bodies
        return b"[" + b",".join(ordered) + b"]"

    def _advice(self) -> dict[str, Any]:
        options = self._options
        return {"reconnect": "retry", "interval": options.interval_ms, "timeout": options.timeout_ms}


def _answer(message: dict[str, Any], channel: str) -> dict[str, Any]:
    return {"channel": channel} | ({"id": message["id"]} if "id" in message else {})


def _unknown_session(message: dict[str, Any], channel: str, reconnect: str = "handshake") -> dict[str, Any]:
    """Only a connect is advised what to do; the others are not, as with real servers."""
    answer = _answer(message, channel) | {"successful": False, "error": "402::Unknown client"}
    if channel == "/meta/connect":
        answer["advice"] = {"reconnect": reconnect, "interval": 0}
    return answer
