"""The Bayeux session as a state machine without sockets, clocks or tasks.

`Session` never waits and never reads or writes anything. Someone else (`Client`, or a test) runs this loop::

    while True:
        match session.next(now):
            case Send(body=body, timeout=timeout):   # one request, one response
                items = session.answered(split(response), now, wall)   # or session.failed(error, now, wall)
            case Listen(timeout=timeout):            # streaming transports: one more frame for that request
                ...
            case Pause(seconds=seconds):
                ...
            case Finish(stopped=stopped):
                break

`items` (see `facts`) are for the consumer, in order. After each `Delivery` the loop reports what became of it,
`confirmed` or `withheld`, before it asks for the next action: the acknowledgement in the next connect says what
is durable, not what was received.

States::

    unconnected ─▶ handshaking ─▶ subscribing ─▶ connecting ─▶ connected ⇄ retrying
                        ▲              │              │             │          │
                        └──────────────┴── lost ──────┴─────────────┴──────────┘
    any ─▶ disconnecting ─▶ stopped

Exactly one request is under way at any time, so there is never a second connect.

`now` is monotonic seconds, `wall` is seconds since 1970. Sources: *The Bayeux Protocol Specification 1.0*, and
the CometD reference on the acknowledgement extension, server transports and sessions.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, assert_never

from service.cometd import advice as advices
from service.cometd.facts import (
    Delivery,
    Evidence,
    Item,
    Lost,
    MultipleClients,
    Opened,
    PossibleGap,
    Refused,
    Resumed,
    ResumeState,
    Stopped,
)
from service.cometd.framing import Message
from service.errors import BadInput, CometdError, ProtocolViolation, TransportFailed

_log = logging.getLogger(__name__)


class State(StrEnum):
    """Where a session stands."""

    UNCONNECTED = "unconnected"
    HANDSHAKING = "handshaking"
    SUBSCRIBING = "subscribing"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RETRYING = "retrying"
    DISCONNECTING = "disconnecting"
    STOPPED = "stopped"


class Purpose(StrEnum):
    """What a request is for; also the last segment of its meta channel."""

    HANDSHAKE = "handshake"
    SUBSCRIBE = "subscribe"
    CONNECT = "connect"
    DISCONNECT = "disconnect"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in seconds.

    `allowance`: added to the time the server holds a connect, for the network (CometD's clients: 10 s).
    `reply`: for the answer to anything else.
    `retry_cap`: the longest pause between two tries.
    `refused`, `refused_cap`: the first and the longest pause after the server refused us.
    `pace`: the least and most between an unconfirmed delivery and its redelivery, and the least time that an
    empty poll takes, whatever the server advises.
    """

    allowance: float = 10.0
    reply: float = 20.0
    retry_cap: float = 60.0
    refused: float = 60.0
    refused_cap: float = 900.0
    pace: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Send:
    """Send this body; its response is due within `timeout` seconds."""

    purpose: Purpose
    body: bytes = field(repr=False)
    timeout: float


@dataclass(frozen=True, slots=True)
class Listen:
    """Wait up to `timeout` seconds for one more frame that answers what was sent."""

    timeout: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """It is over."""

    stopped: Stopped


Action = Send | Listen | Pause | Finish


@dataclass(frozen=True, slots=True)
class _Request:
    """What is under way. `ids` are in the order of the channels for a subscribe."""

    purpose: Purpose
    ids: tuple[str, ...]
    sent_at: float
    deadline: float
    steady: bool


_DRAIN_TRIES = 3
"""How often a closing session tries its last connect."""


class Session:
    """One session of one agent.

    `channels`: exact names or patterns (``/a/*``, ``/a/**``) to subscribe to after each handshake.
    `connection_type`, `streaming`: the transport's name, and whether it brings frames of its own accord.
    `resume`, `acked`: a session of an earlier process to go on with, and its last batch known to be durable.

    Raises `BadInput` if `resume` is of another transport or of other channels.
    """

    __slots__ = (
        "_crowded",
        "_drain_failures",
        "_drained",
        "_evidence",
        "_failures",
        "_gap",
        "_held",
        "_keep",
        "_last_id",
        "_not_before",
        "_older",
        "_opened",
        "_refusals",
        "_request",
        "_resuming",
        "_rng",
        "_since",
        "_stopped",
        "_timing",
        "_unsure",
        "acked",
        "acknowledged",
        "advice",
        "channels",
        "client_id",
        "connection_type",
        "state",
        "streaming",
    )

    def __init__(
        self,
        channels: Sequence[str],
        *,
        connection_type: str = "long-polling",
        streaming: bool = False,
        timing: Timing | None = None,
        rng: random.Random | None = None,
        resume: ResumeState | None = None,
        acked: int = 0,
    ) -> None:
        self.channels = tuple(channels)
        self.connection_type = connection_type
        self.streaming = streaming
        self.state = State.UNCONNECTED
        self.client_id: str | None = None
        self.acknowledged = False
        self.acked = acked
        self.advice = advices.DEFAULT
        self._timing = timing or Timing()
        self._rng = rng or random.Random()  # noqa: S311 - jitter and request ids are no secrets
        self._last_id = self._rng.getrandbits(
            40
        )  # a successor must not repeat ids: servers file batches by them
        self._request: _Request | None = None
        self._older: _Request | None = None
        self._not_before = 0.0
        self._failures = 0
        self._refusals = 0
        self._opened = False
        self._resuming = False
        self._unsure = False
        self._gap = False
        self._since: float | None = None
        self._held: Delivery | None = None
        self._evidence: int | None = None
        self._crowded = False
        self._keep: bool | None = None
        self._drained = False
        self._drain_failures = 0
        self._stopped: tuple[str, bool] | None = None
        if resume is not None:
            self._take_over(resume)

    def __repr__(self) -> str:
        return f"Session({self.state}, acked={self.acked})"

    def _take_over(self, resume: ResumeState) -> None:
        if resume.connection_type != self.connection_type:
            raise BadInput(
                "resume.connection_type",
                f"the session was held over {resume.connection_type}",
                f"Resume it over that transport, or start without it over {self.connection_type}",
            )
        if set(resume.channels) != set(self.channels):
            raise BadInput(
                "resume.channels",
                "the session was subscribed to other channels",
                "Resume it with the channels it had, or start a new session",
            )
        self.state = State.CONNECTING
        self.client_id = resume.client_id
        self.acknowledged = resume.acknowledged
        self._since = resume.since
        self._opened = self._resuming = True
        self._unsure = not (resume.idle or resume.acknowledged)

    # What to do next

    def next(self, now: float) -> Action:
        """Say what to do now."""
        if self.state is State.DISCONNECTING and self._drained and self._keep:
            self._stop("closed; the session is kept", kept=True)
        if self._stopped is not None:
            reason, kept = self._stopped
            return Finish(Stopped(reason, self._since, kept))
        if self._request is not None:
            return Listen(max(0.0, self._request.deadline - now))
        if now < self._not_before:
            return Pause(self._not_before - now)
        match self.state:
            case State.UNCONNECTED | State.HANDSHAKING:
                return self._handshake(now)
            case State.SUBSCRIBING:
                return self._subscribe(now)
            case State.CONNECTING | State.CONNECTED | State.RETRYING:
                return self._connect(now)
            case State.DISCONNECTING if not self._drained:
                return self._connect(now)
            case State.DISCONNECTING:
                return self._send(Purpose.DISCONNECT, [{}], self._timing.reply, now)
            case State.STOPPED:
                raise AssertionError("a stopped session has a reason")
            case _:
                assert_never(self.state)

    def _handshake(self, now: float) -> Send:
        self.state = State.HANDSHAKING
        self.client_id = None
        self.advice = advices.DEFAULT
        self._crowded = False
        hello = {
            "version": "1.0",
            "minimumVersion": "1.0",
            "supportedConnectionTypes": [self.connection_type],
            "ext": {"ack": True},
        }
        return self._send(Purpose.HANDSHAKE, [hello], self._timing.reply, now)

    def _subscribe(self, now: float) -> Send:
        # A message for each channel: the server grants or refuses a message as a whole.
        messages = [{"subscription": channel} for channel in self.channels]
        return self._send(Purpose.SUBSCRIBE, messages, self._timing.reply, now)

    def _connect(self, now: float) -> Send:
        steady = self.state is State.CONNECTED
        message: dict[str, Any] = {"connectionType": self.connection_type}
        if not steady:
            message["advice"] = {
                "timeout": 0
            }  # answer at once: only so is it known whether the session lives
        if self.acknowledged:
            message["ext"] = {"ack": self.acked}
        held = self.advice.timeout if steady else 0.0
        return self._send(Purpose.CONNECT, [message], held + self._timing.allowance, now, steady=steady)

    def _send(
        self,
        purpose: Purpose,
        messages: list[dict[str, Any]],
        timeout: float,
        now: float,
        *,
        steady: bool = False,
    ) -> Send:
        ids = []
        for message in messages:
            self._last_id += 1
            ids.append(str(self._last_id))
            message["id"] = ids[-1]
            message["channel"] = f"/meta/{purpose}"
            if self.client_id is not None:
                message["clientId"] = self.client_id
        self._request = _Request(purpose, tuple(ids), now, now + timeout, steady)
        return Send(purpose, json.dumps(messages, separators=(",", ":")).encode(), timeout)

    # What came back

    def answered(self, messages: Sequence[Message], now: float, wall: float) -> list[Item]:
        """Take a response, or with a streaming transport a frame, to what is under way."""
        request = self._request
        assert request is not None, "an answer needs a request"
        items = self._heed(messages, wall)
        events = tuple(message for message in messages if message.is_event)
        metas = [message for message in messages if not message.is_event]
        goodbyes = [m for m in metas if m.channel == "/meta/disconnect"]
        if goodbyes and request.purpose is not Purpose.DISCONNECT:
            self._request = None
            items += self._deliver(events, None, request, wall)
            return items + self._lose("the server ended the session", now, wall)
        replies = _replies(metas, request, self.channels)
        if len(replies) < len(request.ids):
            return items + self._unanswered(request, events, metas, now, wall)
        self._request = None
        match request.purpose:
            case Purpose.HANDSHAKE:
                items += self._shaken(request, replies[request.ids[0]], events, now, wall)
            case Purpose.SUBSCRIBE:
                items += self._subscribed(request, replies, events, now, wall)
            case Purpose.CONNECT:
                items += self._polled(request, replies[request.ids[0]], events, now, wall)
            case Purpose.DISCONNECT:
                items += self._deliver(events, None, request, wall)
                self._disconnected()
        return items

    def failed(self, error: CometdError, now: float, wall: float) -> list[Item]:
        """Take note that what is under way got no usable answer."""
        request, self._request = self._request, None
        assert request is not None, "a failure needs a request"
        items: list[Item] = []
        if isinstance(error, ProtocolViolation):
            items += self._keep_evidence(error, wall)
        status = error.status if isinstance(error, TransportFailed) else None
        match request.purpose:
            case Purpose.DISCONNECT:
                self._disconnected()
                return items
            case Purpose.HANDSHAKE | Purpose.SUBSCRIBE if status in (401, 403):
                return items + self._refuse(str(error), now, wall, status=status)
            case Purpose.CONNECT if status in (401, 403):
                return items + self._lose(f"HTTP {status}", now, wall)
            case Purpose.CONNECT:
                sent = not isinstance(error, TransportFailed) or error.sent
                items += self._doubt(str(error), wall) if sent else []
                self.state = State.RETRYING if self._keep is None else State.DISCONNECTING
                self._drain_failed(str(error))
            case Purpose.HANDSHAKE | Purpose.SUBSCRIBE:
                pass
        self._back_off(now)
        return items

    def _unanswered(
        self,
        request: _Request,
        events: tuple[Message, ...],
        metas: Sequence[Message],
        now: float,
        wall: float,
    ) -> list[Item]:
        """Take a body without the reply that was due."""
        if self.acknowledged and (not self.streaming or any(m.channel == "/meta/connect" for m in metas)):
            events = ()  # of a connect given up, or of a broken answer: these events come again
        items = self._deliver(events, None, request, wall)
        if not self.streaming:
            items += self.failed(
                TransportFailed(f"the answer holds no reply to the {request.purpose}"), now, wall
            )
        return items

    def _heed(self, messages: Sequence[Message], wall: float) -> list[Item]:
        """Let the newest advice replace what was advised before."""
        for message in messages:
            if message.advice is not None:
                self.advice = advices.parse(message.advice, self.connection_type)
                if self.advice.hosts:
                    _log.warning(
                        "the server advises other hosts, which are not followed: %s", self.advice.hosts
                    )
        if self.advice.multiple_clients and not self._crowded and self.client_id is not None:
            self._crowded = True
            return [MultipleClients(self.client_id, self.advice, wall)]
        return []

    def _deliver(
        self, events: tuple[Message, ...], batch: int | None, request: _Request | None, wall: float
    ) -> list[Item]:
        if not events:
            return []
        attempt = 1 if self._held is None else self._held.attempt + 1
        self._held = None
        request_id = None if request is None else request.ids[0]
        return [
            Delivery(events, batch, self.client_id or "", self.acknowledged, request_id, wall, attempt),
        ]

    # Handshake and subscription

    def _shaken(
        self, request: _Request, reply: Message, events: tuple[Message, ...], now: float, wall: float
    ) -> list[Item]:
        client_id = reply.fields.get("clientId")
        types = reply.fields.get("supportedConnectionTypes")
        code, _ = reply.error
        if not reply.successful:
            said = self._said(reply)
            if self.advice.gives_up:
                self._stop(f"handshake refused for good: {said}")
            elif code is not None and code >= 500:
                self._back_off(now)
            else:
                return self._refuse(f"handshake refused: {said}", now, wall, code=code)
            return []
        if not isinstance(client_id, str) or not client_id:
            return self._refuse("the handshake was answered without a client id", now, wall)
        if isinstance(types, list) and self.connection_type not in types:
            return self._refuse(f"the server does not offer {self.connection_type}", now, wall)
        self.client_id = client_id
        ack = reply.ext.get("ack")
        first = ack.get("batch") if isinstance(ack, dict) and ack.get("enabled") is True else None
        self.acknowledged = ack is True or (isinstance(ack, dict) and ack.get("enabled") is True)
        self.acked = 0
        batch = first if type(first) is int else None
        if not events and batch is not None:
            self.acked = batch
        items = self._deliver(events, batch, request, wall)
        if self.channels:
            self.state = State.SUBSCRIBING
            return items
        return items + self._open((), wall)

    def _subscribed(
        self,
        request: _Request,
        replies: Mapping[str, Message],
        events: tuple[Message, ...],
        now: float,
        wall: float,
    ) -> list[Item]:
        granted = tuple(
            channel for channel, i in zip(self.channels, request.ids, strict=True) if replies[i].successful
        )
        denied = {c: replies[i] for c, i in zip(self.channels, request.ids, strict=True) if c not in granted}
        for reply in denied.values():
            if self.advice.ends_session or _is_loss(reply):
                return self._deliver(events, None, request, wall) + self._lose(self._said(reply), now, wall)
            if (reply.error[0] or 0) >= 500:
                self._back_off(now)
                return self._deliver(events, None, request, wall)
        items: list[Item] = []
        for channel, reply in denied.items():
            if granted:
                items.append(Refused(self._said(reply), reply.error[0], None, channel, None, wall))
            else:
                items += self._refuse(self._said(reply), now, wall, code=reply.error[0], channel=channel)
                break  # one alarm for all, and one pause
        if granted:
            items += self._open(granted, wall)
        return items + self._deliver(events, None, request, wall)

    def _open(self, granted: tuple[str, ...], wall: float) -> list[Item]:
        assert self.client_id is not None, "the handshake gave an id"
        self.state = State.CONNECTING
        self._opened = True
        self._refusals = 0
        self._since = wall
        return [Opened(self.client_id, self.acknowledged, granted, self.advice, wall)]

    def _refuse(
        self,
        reason: str,
        now: float,
        wall: float,
        *,
        code: int | None = None,
        status: int | None = None,
        channel: str | None = None,
    ) -> list[Item]:
        """Report that we are not let in, and ask again after a long pause that grows."""
        timing = self._timing
        longest = min(timing.refused_cap, timing.refused * 2 ** min(self._refusals, 20))
        pause = max(self.advice.interval, longest * self._rng.uniform(0.5, 1.0))
        self._refusals += 1
        self._not_before = now + pause
        self.state = State.HANDSHAKING
        return [Refused(reason, code, status, channel, pause, wall)]

    # Polling

    def _polled(
        self, request: _Request, reply: Message, events: tuple[Message, ...], now: float, wall: float
    ) -> list[Item]:
        if not reply.successful:
            items = self._deliver(events, None, request, wall)
            return items + self._poll_refused(reply, now, wall)
        self._failures = 0
        self._evidence = None
        if self._keep is None:
            self.state = State.CONNECTED
        else:
            self._drained = self._older is None
        ack = reply.ext.get("ack")
        batch = ack if self.acknowledged and type(ack) is int else None
        if not events and self._held is not None:
            events = (
                self._held.messages
            )  # not redelivered, though never acknowledged: the copy here is the last
        items = self._resumed(wall)
        if self._older is not None:
            items += self._older_overdue(wall)
        if self.advice.ends_session:
            items += self._deliver(events, None, request, wall)
            return items + self._lose(f"advice: reconnect {self.advice.reconnect}", now, wall)
        if events:
            items += self._deliver(events, batch, request, wall)
        else:
            self.acked = self.acked if batch is None else batch
            self._since = wall
        self._not_before = now + self.advice.interval
        if request.steady and not events:
            self._not_before = max(self._not_before, request.sent_at + self._timing.pace[0])
        return items

    def _resumed(self, wall: float) -> list[Item]:
        """Say that polls succeed (again), if that is news."""
        if not self._resuming and not self._gap:
            return []
        assert self.client_id is not None, "only a session is polled"
        items: list[Item] = []
        if self._unsure:
            items += self._doubt("an earlier process left off while it polled", wall)
        self._resuming = self._gap = self._unsure = False
        return [*items, Resumed(self.client_id, self.acknowledged, self._since, wall)]

    def _poll_refused(self, reply: Message, now: float, wall: float) -> list[Item]:
        code, _ = reply.error
        said = self._said(reply)
        if _is_loss(reply) or self.advice.ends_session:
            return self._lose(said, now, wall)
        if code is not None and 400 <= code < 500:
            # Our message is wrong or not allowed, and would be again: start over, slowly.
            _log.error("a connect was refused: %s", said)
            items = self._lose(said, now, wall)
            return items if self._stopped else items + self._refuse(said, now, wall, code=code)
        if self._keep is None:
            self.state = State.RETRYING
        self._drain_failed(said)
        self._back_off(now)
        return []

    def _lose(self, cause: str, now: float, wall: float) -> list[Item]:
        """End the session that the server no longer has, and make for a new one."""
        items: list[Item] = []
        if self._held is not None:  # the server's copy is gone, this is the last one
            items += self._deliver(self._held.messages, None, None, wall)
        if self._opened:
            assert self.client_id is not None, "an open session has an id"
            items.append(Lost(self.client_id, self.acknowledged, cause, self._since, wall))
        self.client_id = None
        self.acknowledged = self._opened = self._resuming = self._gap = self._unsure = False
        self.acked = 0
        if self.advice.gives_up:
            self._stop(f"the server forbids to go on: {cause}")
        elif self._keep is not None:
            self._stop(f"lost while closing: {cause}")
        else:
            self.state = State.HANDSHAKING
            self._failures += 1
            self._back_off(now, first=1.0)
        return items

    def _doubt(self, cause: str, wall: float) -> list[Item]:
        """Report the possible gap of a failed poll, once until polls succeed again."""
        if self.acknowledged or self._gap:
            return []
        assert self.client_id is not None, "only a session is polled"
        self._gap = True
        self._unsure = False
        return [PossibleGap(self.client_id, cause, self._since, wall)]

    def _back_off(self, now: float, first: float = 0.0) -> None:
        """Wait the advised interval, and a random part of a time that doubles with each failure in a row."""
        if first == 0.0:
            self._failures += 1
        longest = first if self._failures < 2 else 0.5 * 2 ** min(self._failures - 2, 20)
        longest = min(self._timing.retry_cap, max(first, longest))
        self._not_before = now + max(0.0, self.advice.interval) + self._rng.uniform(0.0, longest)

    def _keep_evidence(self, error: ProtocolViolation, wall: float) -> list[Item]:
        """Hand over a body that would not parse, once while the same one keeps coming."""
        digest = hash(error.body)
        if digest == self._evidence:
            return []
        self._evidence = digest
        return [Evidence(error.body, str(error), wall)]

    def _said(self, reply: Message) -> str:
        """Give a reply's error for people, without the client id that some servers put into it."""
        code, text = reply.error
        said = " ".join(part for part in (str(code or ""), text) if part) or "no error given"
        return said.replace(self.client_id, "…") if self.client_id else said

    # What became of a delivery

    def confirmed(self, delivery: Delivery) -> None:
        """Note that a delivery is durable: the next connect acknowledges it."""
        self._held = None
        if delivery.client_id != self.client_id:
            return
        if delivery.batch is not None:
            self.acked = delivery.batch
        if self._opened and (delivery.batch is not None or not self.acknowledged):
            self._since = delivery.at

    def withheld(self, delivery: Delivery, now: float) -> None:
        """Note that a delivery with a batch is not durable: the next connect repeats the old acknowledgement."""
        self._held = delivery
        self._drained = False
        self._not_before = max(self._not_before, now + self.pace())

    def pace(self) -> float:
        """Return how long to wait before an unconfirmed delivery comes again."""
        return self._rng.uniform(*self._timing.pace)

    # Closing and going on later

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._keep is not None

    def resume_state(
        self, cookies: tuple[Mapping[str, str | float | bool | None], ...]
    ) -> ResumeState | None:
        """Return what a successor needs, None while there is no session to go on with."""
        if self.client_id is None or not self._opened:
            return None
        return ResumeState(
            client_id=self.client_id,
            cookies=cookies,
            connection_type=self.connection_type,
            acknowledged=self.acknowledged,
            channels=self.channels,
            since=self._since,
            idle=self.state is State.STOPPED and self._drained and not self._gap,
        )

    def close(self, now: float, *, keep: bool) -> None:
        """End in good order: one more connect, and unless the session is to be kept, a disconnect.

        A request under way must be settled before, by `interrupt` if need be.
        """
        assert self._request is None, "something is under way"
        if self.state is State.STOPPED:
            return
        self._keep = keep
        self._not_before = now
        self._failures = 0
        if self._opened:
            self.state = State.DISCONNECTING
        elif self.client_id is not None and not keep:
            self.state, self._drained = State.DISCONNECTING, True
        else:
            self._stop("closed")

    def interrupt(self) -> bool:
        """Give up what is under way, in order to close.

        Return whether its response is still wanted: that of a poll without acknowledgement is, since there the
        server keeps no copy. It answers the older poll when the next one arrives; hand the outcome to
        `older_answered` or `older_failed`, before that of the next one.
        """
        request, self._request = self._request, None
        wanted = (
            request is not None
            and request.purpose is Purpose.CONNECT
            and not self.acknowledged
            and not self.streaming
        )
        self._older = request if wanted else None
        return wanted

    def older_answered(self, messages: Sequence[Message], wall: float) -> list[Item]:
        """Take the response to the poll that was interrupted."""
        events = tuple(message for message in messages if message.is_event)
        request, self._older = self._older, None
        return self._deliver(events, None, request, wall)

    def older_failed(self, error: CometdError, wall: float) -> list[Item]:
        """Take note that the interrupted poll failed. An HTTP status is the answer due to a superseded poll."""
        self._older = None
        if isinstance(error, TransportFailed) and error.status is not None:
            return []
        items = self._keep_evidence(error, wall) if isinstance(error, ProtocolViolation) else []
        return items + self._doubt(str(error), wall)

    def _older_overdue(self, wall: float) -> list[Item]:
        """Count an answer to the last connect that came while the interrupted poll is still held.

        They have overtaken each other on the way: one more connect releases the older poll.
        """
        self._drain_failures += 1
        if self._drain_failures < _DRAIN_TRIES:
            return []
        self._drained = True
        return self.older_failed(TransportFailed("the interrupted poll was never answered"), wall)

    def _drain_failed(self, cause: str) -> None:
        """Give the last connect up after a few tries. The server's session is left to expire."""
        if self._keep is not None:
            self._drain_failures += 1
            if self._drain_failures >= _DRAIN_TRIES:
                self._stop(f"closed without a last answer: {cause}", kept=True)

    def _disconnected(self) -> None:
        self.client_id = None
        self._stop("closed")

    def _stop(self, reason: str, *, kept: bool = False) -> None:
        self.state = State.STOPPED
        self._stopped = reason, kept


def _replies(metas: Sequence[Message], request: _Request, channels: Sequence[str]) -> dict[str, Message]:
    """Find the replies to a request, by id. A server that omits ids is matched by what it answers to."""
    found: dict[str, Message] = {}
    for message in metas:
        if message.channel != f"/meta/{request.purpose}":
            continue
        reply_id = message.id
        if reply_id is None and request.purpose is Purpose.SUBSCRIBE:
            subscription = message.fields.get("subscription")
            by_channel = dict(zip(channels, request.ids, strict=True))
            reply_id = by_channel.get(subscription) if isinstance(subscription, str) else None
        elif reply_id is None:
            reply_id = request.ids[0]
        if reply_id in request.ids:
            found[str(reply_id)] = message
    return found


def _is_loss(reply: Message) -> bool:
    """Whether an unsuccessful reply says that the server does not know the session, or us."""
    code, text = reply.error
    return code in (401, 402) or (code == 403 and "unknown client" in text.lower())
