"""The Bayeux session as a state machine without sockets, clocks or tasks.

`Session` never waits and never reads or writes anything. Someone else (`Client`, or a test) runs this loop::

    while True:
        match session.next(now):
            case Send(body=body, timeout=timeout):      # one request, one response
                items = session.answered(split(response), now, wall)
                # or session.failed(error, now, wall)
            case Listen(timeout=timeout):               # streaming transports: one more frame
                ...
            case Pause(seconds=seconds):
                ...
            case Finish(stopped=stopped):
                break

`items` (see `facts`) are for the consumer, in order. After each `Delivery` the loop reports what became of
it, `confirmed` or `withheld`, before it asks for the next action: the acknowledgement in the next connect
says what is durable, not what was received.

States::

    unconnected ─▶ handshaking ─▶ subscribing ─▶ connecting ─▶ connected ⇄ retrying
                        ▲              │              │             │          │
                        └──────────────┴── lost ──────┴─────────────┴──────────┘
    any ─▶ disconnecting ─▶ stopped

Exactly one request is under way at any time, so there is never a second connect; `interrupt` tells of the one
exception, at closing.

`now` is monotonic seconds, `wall` is seconds since 1970. Sources: *The Bayeux Protocol Specification 1.0*,
and the CometD reference on the acknowledgement extension, server transports and sessions.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from service.cometd import advice as advices
from service.cometd.actions import Action, Finish, Listen, Pause, Purpose, Send, State
from service.cometd.facts import (
    Delivery,
    Evidence,
    Failing,
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
from service.cometd.patience import Patience, Timing
from service.cometd.replies import (
    FORBIDDEN,
    SERVER_TROUBLE,
    UNAUTHENTICATED,
    Request,
    batch_of,
    is_goodbye,
    is_loss,
    negotiated,
    replies_to,
)
from service.errors import BadInput, CometdError, ProtocolViolation, TransportFailed

_log = logging.getLogger(__name__)

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
        "_closing",
        "_crowded",
        "_drain_failures",
        "_drained",
        "_evidence",
        "_failing",
        "_gap",
        "_held",
        "_last_id",
        "_not_before",
        "_now",
        "_older",
        "_opened",
        "_out",
        "_patience",
        "_request",
        "_resuming",
        "_since",
        "_stopped",
        "_timing",
        "_unsure",
        "_wall",
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
        rng = rng or random.SystemRandom()
        self.channels = tuple(channels)
        self.connection_type = connection_type
        self.streaming = streaming
        self.state = State.UNCONNECTED
        self.client_id: str | None = None
        self.acknowledged = False
        self.acked = acked
        self.advice = advices.DEFAULT
        self._timing = timing or Timing()
        self._patience = Patience(self._timing, rng)
        self._last_id = rng.getrandbits(40)  # a successor must not repeat ids: servers file batches by them
        self._now = self._wall = self._not_before = 0.0
        self._out: list[Item] = []
        self._request: Request | None = None
        self._opened = False  # Opened was told, or the session was taken over
        self._resuming = False  # taken over, and no poll has succeeded yet
        self._unsure = False  # taken over from a process that may have lost a response
        self._gap = False  # PossibleGap was told, and no poll has succeeded since
        self._since: float | None = None  # the end of the certain span
        self._held: Delivery | None = None  # the last delivery, if it was not confirmed
        self._evidence: int | None = None  # the hash of the body last told
        self._failing = ""  # the cause last told, while requests fail
        self._crowded = False  # MultipleClients was told
        self._closing: bool | None = None  # once closing: whether to keep the server's session
        self._drained = False  # the last connect was answered
        self._drain_failures = 0
        self._older: Request | None = None  # the poll interrupted to close, still wanted
        self._stopped: Stopped | None = None
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
        if self._stopped is not None:
            return Finish(self._stopped)
        if self._request is not None:
            return Listen(max(0.0, self._request.deadline - now))
        if now < self._not_before:
            return Pause(self._not_before - now)
        self._now = now
        return self._due()

    def _due(self) -> Action:
        match self.state:
            case State.UNCONNECTED | State.HANDSHAKING:
                return self._handshake()
            case State.SUBSCRIBING:
                return self._subscribe()
            case State.DISCONNECTING if self._drained:
                return self._leave()
            case _:
                return self._connect()

    def _handshake(self) -> Send:
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
        return self._send(Purpose.HANDSHAKE, [hello], self._timing.reply)

    def _subscribe(self) -> Send:
        # A message for each channel: the server grants or refuses a message as a whole.
        messages = [{"subscription": channel} for channel in self.channels]
        return self._send(Purpose.SUBSCRIBE, messages, self._timing.reply)

    def _connect(self) -> Send:
        steady = self.state is State.CONNECTED
        message: dict[str, Any] = {"connectionType": self.connection_type}
        if not steady:
            message["advice"] = {"timeout": 0}  # an answer at once, to know whether the session lives
        if self.acknowledged:
            message["ext"] = {"ack": self.acked}
        held = self.advice.timeout if steady else 0.0
        return self._send(Purpose.CONNECT, [message], held + self._timing.allowance, steady=steady)

    def _leave(self) -> Action:
        if self._closing:
            return Finish(self._stop("closed; the session is kept", kept=True))
        return self._send(Purpose.DISCONNECT, [{}], self._timing.reply)

    def _send(
        self, purpose: Purpose, messages: list[dict[str, Any]], timeout: float, *, steady: bool = False
    ) -> Send:
        ids = []
        for message in messages:
            self._last_id += 1
            ids.append(str(self._last_id))
            message["id"] = ids[-1]
            message["channel"] = f"/meta/{purpose}"
            if self.client_id is not None:
                message["clientId"] = self.client_id
        self._request = Request(purpose, tuple(ids), self._now, self._now + timeout, steady)
        return Send(purpose, json.dumps(messages, separators=(",", ":")).encode(), timeout)

    # What came back

    def answered(self, messages: Sequence[Message], now: float, wall: float) -> list[Item]:
        """Take a response, or with a streaming transport a frame, to what is under way."""
        request = self._request
        assert request is not None, "an answer needs a request"
        self._now, self._wall = now, wall
        events = tuple(message for message in messages if message.is_event)
        metas = [message for message in messages if not message.is_event]
        self._heed(messages)
        replies = replies_to(metas, request, self.channels)
        if request.purpose is not Purpose.DISCONNECT and any(is_goodbye(message) for message in metas):
            self._request = None
            self._deliver(events, None, request)
            self._lose("the server ended the session")
        elif len(replies) < len(request.ids):
            self._unanswered(request, events, metas)
        else:
            self._request = None
            reply = replies[request.ids[0]]
            match request.purpose:
                case Purpose.HANDSHAKE:
                    self._shaken(request, reply, events)
                case Purpose.SUBSCRIBE:
                    self._subscribed(request, replies, events)
                case Purpose.CONNECT if reply.successful:
                    self._polled(request, reply, events)
                case Purpose.CONNECT:
                    self._deliver(events, None, request)
                    self._poll_refused(reply)
                case Purpose.DISCONNECT:
                    self._deliver(events, None, request)
                    self._disconnected()
        return self._told()

    def failed(self, error: CometdError, now: float, wall: float) -> list[Item]:
        """Take note that what is under way got no usable answer."""
        self._now, self._wall = now, wall
        self._fail(error)
        return self._told()

    def _told(self) -> list[Item]:
        out, self._out = self._out, []
        return out

    def _fail(self, error: CometdError) -> None:
        request, self._request = self._request, None
        assert request is not None, "a failure needs a request"
        if isinstance(error, ProtocolViolation):
            self._keep_evidence(error)
        status = error.status if isinstance(error, TransportFailed) else None
        refused = status in (UNAUTHENTICATED, FORBIDDEN)
        match request.purpose:
            case Purpose.DISCONNECT:
                self._disconnected()
            case Purpose.CONNECT if refused:
                self._lose(f"HTTP {status}")
            case Purpose.HANDSHAKE | Purpose.SUBSCRIBE if refused:
                self._refuse(str(error), status=status)
            case Purpose.HANDSHAKE | Purpose.SUBSCRIBE:
                self._try_again(str(error))
            case Purpose.CONNECT:
                if not isinstance(error, TransportFailed) or error.sent:
                    self._doubt(str(error))
                self._poll_failed(str(error))

    def _poll_failed(self, cause: str) -> None:
        """Try the poll again, with the same acknowledgement; when closing, a few times only."""
        self._try_again(cause)
        if self._closing is None:
            self.state = State.RETRYING
            return
        self._drain_failures += 1
        if self._drain_failures >= _DRAIN_TRIES:
            self._stop(f"closed without a last answer: {cause}", kept=True)

    def _try_again(self, cause: str) -> None:
        self._wait(self._patience.after_failure())
        if cause != self._failing:
            self._failing = cause
            self._out.append(Failing(cause, self._wall))

    def _unanswered(self, request: Request, events: tuple[Message, ...], metas: Sequence[Message]) -> None:
        """Take a body without the reply that is due."""
        comes_again = self.acknowledged and (
            not self.streaming or any(message.channel == "/meta/connect" for message in metas)
        )
        if not comes_again:
            self._deliver(events, None, request)
        if not self.streaming:
            self._fail(TransportFailed(f"the answer holds no reply to the {request.purpose}"))

    def _heed(self, messages: Sequence[Message]) -> None:
        """Let the newest advice replace what was advised before."""
        for message in messages:
            if message.advice is not None:
                self.advice = advices.parse(message.advice, self.connection_type)
                if self.advice.hosts:
                    _log.warning("the server advises other hosts, not followed: %s", self.advice.hosts)
        if self.advice.multiple_clients and not self._crowded and self.client_id is not None:
            self._crowded = True
            _log.warning("another client shares the cookies of this session")
            self._out.append(MultipleClients(self.client_id, self.advice, self._wall))

    def _deliver(self, events: tuple[Message, ...], batch: int | None, request: Request) -> None:
        if not events:
            return
        attempt = 1 if self._held is None else self._held.attempt + 1
        self._held = None
        request_id = request.ids[0]
        self._out.append(
            Delivery(events, batch, self.client_id or "", self.acknowledged, request_id, self._wall, attempt)
        )

    # Handshake and subscription

    def _shaken(self, request: Request, reply: Message, events: tuple[Message, ...]) -> None:
        client_id = reply.fields.get("clientId")
        types = reply.fields.get("supportedConnectionTypes")
        if not reply.successful:
            self._handshake_denied(reply)
        elif not isinstance(client_id, str) or not client_id:
            self._refuse("the handshake was answered without a client id")
        elif isinstance(types, list) and self.connection_type not in types:
            self._refuse(f"the server does not offer {self.connection_type}")
        else:
            self.client_id = client_id
            self.acknowledged, first_batch = negotiated(reply)
            self.acked = 0 if events else first_batch or 0
            self._deliver(events, first_batch, request)
            self.state = State.SUBSCRIBING
            if not self.channels:
                self._open(())

    def _handshake_denied(self, reply: Message) -> None:
        code, _ = reply.error
        said = f"handshake refused: {self._said(reply)}"
        if self.advice.gives_up:
            self._stop(f"{said}; the server forbids another try")
        elif code is not None and code >= SERVER_TROUBLE:
            self._try_again(said)
        else:
            self._refuse(said, code=code)

    def _subscribed(
        self, request: Request, replies: Mapping[str, Message], events: tuple[Message, ...]
    ) -> None:
        asked = [(channel, replies[i]) for channel, i in zip(self.channels, request.ids, strict=True)]
        granted = tuple(channel for channel, reply in asked if reply.successful)
        denied = [(channel, reply) for channel, reply in asked if not reply.successful]
        lost = [reply for _, reply in denied if is_loss(reply)]
        if self.advice.ends_session or lost:
            self._deliver(events, None, request)
            self._lose(self._said(lost[0]) if lost else f"advice: reconnect {self.advice.reconnect}")
            return
        troubled = [reply for _, reply in denied if (reply.error[0] or 0) >= SERVER_TROUBLE]
        if troubled:
            self._deliver(events, None, request)
            self._try_again(self._said(troubled[0]))
            return
        if not granted:
            channel, reply = denied[0]
            self._deliver(events, None, request)
            self._refuse(self._said(reply), code=reply.error[0], channel=channel)
            return
        for channel, reply in denied:
            self._out.append(Refused(self._said(reply), reply.error[0], None, channel, None, self._wall))
        self._open(granted)
        self._deliver(events, None, request)

    def _open(self, granted: tuple[str, ...]) -> None:
        assert self.client_id is not None, "the handshake gave an id"
        self.state = State.CONNECTING
        self._opened = True
        self._patience.admitted()
        self._since = self._wall
        self._out.append(Opened(self.client_id, self.acknowledged, granted, self.advice, self._wall))

    def _refuse(
        self, reason: str, *, code: int | None = None, status: int | None = None, channel: str | None = None
    ) -> None:
        """Report that we are not let in, and start over after a long pause that grows."""
        self.state = State.HANDSHAKING
        pause = self._wait(self._patience.after_refusal())
        self._out.append(Refused(reason, code, status, channel, pause, self._wall))

    # Polling

    def _polled(self, request: Request, reply: Message, events: tuple[Message, ...]) -> None:
        self._patience.succeeded()
        self._evidence = None
        self._failing = ""
        self._resumed()
        if self._closing is None:
            self.state = State.CONNECTED
        else:
            self._drained = self._older is None
        if not events and self._held is not None:
            events = self._held.messages  # never acknowledged, yet not sent again: ours is the last copy
        if self.advice.ends_session:
            self._deliver(events, None, request)
            self._lose(f"advice: reconnect {self.advice.reconnect}")
            return
        batch = batch_of(reply) if self.acknowledged else None
        self._deliver(events, batch, request)
        if not events:
            self.acked = self.acked if batch is None else batch
            self._since = self._wall
        self._wait(0.0)
        if request.steady and not events:
            self._not_before = max(self._not_before, request.sent_at + self._timing.pace[0])
        if self._older is not None:
            self._older_overdue()

    def _resumed(self) -> None:
        """Say that polls succeed (again), if that is news."""
        if not self._resuming and not self._gap:
            return
        assert self.client_id is not None, "only a session is polled"
        if self._unsure:
            self._doubt("an earlier process left off while it polled")
        self._resuming = self._gap = self._unsure = False
        self._out.append(Resumed(self.client_id, self.acknowledged, self._since, self._wall))

    def _poll_refused(self, reply: Message) -> None:
        code, _ = reply.error
        said = self._said(reply)
        if is_loss(reply) or self.advice.ends_session:
            self._lose(said)
        elif code is None or code >= SERVER_TROUBLE:
            self._poll_failed(said)
        else:  # our message is wrong or not allowed, and would be again: start over, slowly
            _log.error("a connect was refused: %s", said)
            self._lose(said)
            if self._stopped is None:
                self._refuse(said, code=code)

    def _lose(self, cause: str) -> None:
        """End the session that the server no longer has, and make for a new one."""
        if self._held is not None:  # the server's copy is gone, ours is the last one
            held, self._held = self._held, None
            self._out.append(replace(held, batch=None, attempt=held.attempt + 1))
        if self._opened:
            assert self.client_id is not None, "an open session has an id"
            self._out.append(Lost(self.client_id, self.acknowledged, cause, self._since, self._wall))
        self.client_id = None
        self.acknowledged = self._opened = self._resuming = self._gap = self._unsure = False
        self.acked = 0
        if self.advice.gives_up:
            self._stop(f"the server forbids to go on: {cause}")
        elif self._closing is not None:
            self._stop(f"lost while closing: {cause}")
        else:
            self.state = State.HANDSHAKING
            self._wait(self._patience.after_loss())

    def _doubt(self, cause: str) -> None:
        """Report the possible gap of a failed poll, once until polls succeed again."""
        if self.acknowledged or self._gap:
            return
        assert self.client_id is not None, "only a session is polled"
        self._gap = True
        self._unsure = False
        self._out.append(PossibleGap(self.client_id, cause, self._since, self._wall))

    def _wait(self, pause: float) -> float:
        """Send nothing for this long on top of the interval that the server advises."""
        pause += max(0.0, self.advice.interval)
        self._not_before = self._now + pause
        return pause

    def _keep_evidence(self, error: ProtocolViolation) -> None:
        """Hand over a body that would not parse, once while the same one keeps coming."""
        if hash(error.body) != self._evidence:
            self._evidence = hash(error.body)
            self._out.append(Evidence(error.body, str(error), self._wall))

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
        if self._opened:
            self._since = self._certain_after(delivery)

    def _certain_after(self, delivery: Delivery) -> float | None:
        """Return the end of the certain span if this delivery is durable.

        With acknowledgement, events outside a batch say nothing about those that wait in the server's queue.
        """
        whole = delivery.batch is not None or not delivery.acknowledged
        return delivery.at if whole else self._since

    def withheld(self, delivery: Delivery, now: float) -> None:
        """Note that a delivery with a batch is not durable: the next connect repeats the old ack."""
        self._held = delivery
        self._drained = False
        self._not_before = max(self._not_before, now + self.pace())

    def pace(self) -> float:
        """Return how long to wait before an unconfirmed delivery comes again."""
        return self._patience.pace()

    # Closing, and going on later

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._closing is not None

    def close(self, now: float, *, keep: bool) -> None:
        """End in good order: one more connect and, unless the session is to be kept, a disconnect.

        A request under way must be settled before, by `interrupt` if need be.
        """
        assert self._request is None, "something is under way"
        self._closing = keep
        self._not_before = now
        self._patience.succeeded()
        if self._stopped is not None:
            return
        if self._opened or (self.client_id is not None and not keep):
            self.state = State.DISCONNECTING
            self._drained = not self._opened
        else:
            self._stop("closed")

    def interrupt(self) -> bool:
        """Give up what is under way, in order to close. Return whether its response is still wanted.

        That of a poll without acknowledgement is: the server keeps no copy of what it sends. Leave it be;
        the server answers it when the last connect arrives. Hand the outcome to `older_answered` or
        `older_failed`, before that of the last connect if it is there in time.
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
        self._wall = wall
        request, self._older = self._older, None
        assert request is not None, "a poll was interrupted"
        self._deliver(tuple(message for message in messages if message.is_event), None, request)
        return self._told()

    def older_failed(self, error: CometdError, wall: float) -> list[Item]:
        """Take note that the interrupted poll failed. An HTTP status is the answer due to it: no gap."""
        self._wall = wall
        self._older = None
        if isinstance(error, ProtocolViolation):
            self._keep_evidence(error)
        if not isinstance(error, TransportFailed) or error.status is None:
            self._doubt(str(error))
        return self._told()

    def _older_overdue(self) -> None:
        """Make sure of the interrupted poll when the last connect was answered and it was not.

        They may have overtaken each other on the way: one more connect releases it.
        """
        self._drain_failures += 1
        if self._drain_failures >= _DRAIN_TRIES:
            self._older = None
            self._doubt("the interrupted poll was never answered")
            self._drained = True

    def resume_state(
        self,
        cookies: tuple[Mapping[str, str | float | bool | None], ...],
        after: Delivery | None = None,
    ) -> ResumeState | None:
        """Return what a successor needs once `after` is durable; None without a session to go on with."""
        if self.client_id is None or not self._opened:
            return None
        return ResumeState(
            client_id=self.client_id,
            cookies=cookies,
            connection_type=self.connection_type,
            acknowledged=self.acknowledged,
            channels=self.channels,
            since=self._since if after is None else self._certain_after(after),
            idle=self.state is State.STOPPED and self._drained and not self._gap,
        )

    def _disconnected(self) -> None:
        self.client_id = None
        self._stop("closed")

    def _stop(self, reason: str, *, kept: bool = False) -> Stopped:
        self.state = State.STOPPED
        self._stopped = Stopped(reason, self._since, kept)
        return self._stopped
