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

import logging
from collections.abc import Mapping, Sequence

from service.cometd import advice as advices
from service.cometd.actions import Action, Finish, Listen, Pause, Purpose, Send, State
from service.cometd.facts import Delivery, Item, ResumeState
from service.cometd.framing import Message
from service.cometd.opening import Opening
from service.cometd.replies import (
    FORBIDDEN,
    SERVER_TROUBLE,
    UNAUTHENTICATED,
    batch_of,
    is_goodbye,
    is_loss,
    replies_to,
)
from service.cometd.requests import Request, poll
from service.errors import CometdError, ProtocolViolation, TransportFailed

_log = logging.getLogger(__name__)


class Session(Opening):
    """One session of one agent.

    `channels`: exact names or patterns (``/a/*``, ``/a/**``) to subscribe to after each handshake.
    `connection_type`, `streaming`: the transport's name, and whether it brings frames of its own accord.
    `resume`, `acked`: a session of an earlier process to go on with, and its last batch known to be durable.

    Raises `BadInput` if `resume` is of another transport or of other channels.
    """

    __slots__ = ()

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
            case State.DISCONNECTING if self._closing.drained:
                return self._leave()
            case _:
                return self._connect()

    def _connect(self) -> Send:
        steady = self.state is State.CONNECTED
        message = poll(self.connection_type, ack=self.acked if self.acknowledged else None, held=steady)
        held = self.advice.timeout if steady else 0.0
        return self._send(Purpose.CONNECT, message, held + self._timing.allowance, steady=steady)

    def _leave(self) -> Action:
        if self._closing.keep:
            return Finish(self._stop("closed; the session is kept", kept=True))
        return self._send(Purpose.DISCONNECT, [{}], self._timing.reply)

    # What came back

    def answered(self, messages: Sequence[Message], now: float, wall: float) -> list[Item]:
        """Take a response, or with a streaming transport a frame, to what is under way."""
        request = self._request
        assert request is not None, "an answer needs a request"
        self._tell_time(now, wall)
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
        return self._news.take()

    def failed(self, error: CometdError, now: float, wall: float) -> list[Item]:
        """Take note that what is under way got no usable answer."""
        self._tell_time(now, wall)
        self._fail(error)
        return self._news.take()

    def _fail(self, error: CometdError) -> None:
        request, self._request = self._request, None
        assert request is not None, "a failure needs a request"
        if isinstance(error, ProtocolViolation):
            self._news.evidence(error, self._wall)
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
        if not self._closing.begun:
            self.state = State.RETRYING
            return
        if self._closing.tried_in_vain():
            self._stop(f"closed without a last answer: {cause}", kept=True)

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
        if self.advice.multiple_clients and self.client_id is not None:
            self._news.crowded(self.client_id, self.advice, self._wall)

    # Polling

    def _polled(self, request: Request, reply: Message, events: tuple[Message, ...]) -> None:
        self._patience.succeeded()
        self._news.succeeding()
        assert self.client_id is not None, "only a session is polled"
        self._news.tell(*self._certain.polled(self.client_id, self._wall, acknowledged=self.acknowledged))
        if not self._closing.begun:
            self.state = State.CONNECTED
        else:
            self._closing.drained = self._closing.older is None
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
            self._certain.polled_in_vain(self._asked_at(request))
        self._wait(0.0)
        if request.steady and not events:
            self._not_before = max(self._not_before, request.sent_at + self._timing.pace[0])
        if self._closing.older is not None:
            self._older_overdue()

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

    # What became of a delivery

    def confirmed(self, delivery: Delivery) -> None:
        """Note that a delivery is durable: the next connect acknowledges it."""
        self._held = None
        if delivery.client_id != self.client_id:
            return
        if delivery.batch is not None:
            self.acked = delivery.batch
        self._certain.reach(delivery)

    def withheld(self, delivery: Delivery, now: float) -> None:
        """Note that a delivery with a batch is not durable: the next connect repeats the old ack."""
        self._held = delivery
        self._closing.drained = False
        self._not_before = max(self._not_before, now + self.pace())

    def pace(self) -> float:
        """Return how long to wait before an unconfirmed delivery comes again."""
        return self._patience.pace()

    # Closing, and going on later

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._closing.begun

    def close(self, now: float, *, keep: bool) -> None:
        """End in good order: one more connect and, unless the session is to be kept, a disconnect.

        A request under way must be settled before, by `interrupt` if need be.
        """
        assert self._request is None, "something is under way"
        self._closing.keep = keep
        self._not_before = now
        self._patience.succeeded()
        if self._stopped is not None:
            return
        if self._certain.open or (self.client_id is not None and not keep):
            self.state = State.DISCONNECTING
            self._closing.drained = not self._certain.open
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
        self._closing.older = request if wanted else None
        return wanted

    def older_answered(self, messages: Sequence[Message], wall: float) -> list[Item]:
        """Take the response to the poll that was interrupted."""
        self._wall = wall
        request, self._closing.older = self._closing.older, None
        assert request is not None, "a poll was interrupted"
        self._deliver(tuple(message for message in messages if message.is_event), None, request)
        return self._news.take()

    def older_failed(self, error: CometdError, wall: float) -> list[Item]:
        """Take note that the interrupted poll failed. An HTTP status is the answer due to it: no gap."""
        self._wall = wall
        self._closing.older = None
        if isinstance(error, ProtocolViolation):
            self._news.evidence(error, self._wall)
        if not isinstance(error, TransportFailed) or error.status is None:
            self._doubt(str(error))
        return self._news.take()

    def _older_overdue(self) -> None:
        """Make sure of the interrupted poll when the last connect was answered and it was not.

        They may have overtaken each other on the way: one more connect releases it.
        """
        if self._closing.tried_in_vain():
            self._closing.older = None
            self._doubt("the interrupted poll was never answered")
            self._closing.drained = True

    def resume_state(
        self,
        cookies: tuple[Mapping[str, str | float | bool | None], ...],
        after: Delivery | None = None,
    ) -> ResumeState | None:
        """Return what a successor needs once `after` is durable; None without a session to go on with."""
        if self.client_id is None or not self._certain.open:
            return None
        return ResumeState(
            client_id=self.client_id,
            cookies=cookies,
            connection_type=self.connection_type,
            acknowledged=self.acknowledged,
            channels=self.channels,
            since=self._certain.since if after is None else self._certain.after(after),
            idle=self.state is State.STOPPED and self._closing.drained and not self._certain.in_doubt,
        )

    def _disconnected(self) -> None:
        self.client_id = None
        self._stop("closed")
