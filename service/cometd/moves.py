"""The moves of a session: what it can do and tell, whatever made it do so. `Session` has the rules."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from service.cometd import advice as advices
from service.cometd.actions import Purpose, Send, State
from service.cometd.certainty import Certainty
from service.cometd.closing import Closing
from service.cometd.facts import Delivery, Lost, Opened, Refused, ResumeState, Stopped
from service.cometd.framing import Message
from service.cometd.news import News
from service.cometd.patience import Patience, Timing
from service.cometd.replies import said_in
from service.cometd.requests import Request, Writer


class Moves:
    """The state of one session, and every step that changes it for more than one reason.

    The parameters and the public attributes are those of `Session`.
    """

    __slots__ = (
        "_ahead",
        "_certain",
        "_closing",
        "_held",
        "_news",
        "_not_before",
        "_now",
        "_patience",
        "_request",
        "_stopped",
        "_timing",
        "_wall",
        "_writer",
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
        self._writer = Writer(rng)
        self._now = self._wall = self._ahead = self._not_before = 0.0
        self._news = News()
        self._request: Request | None = None
        self._certain = Certainty()
        self._held: Delivery | None = None  # the last delivery, if it was not confirmed
        self._closing = Closing()
        self._stopped: Stopped | None = None
        if resume is not None:
            resume.check_fits(connection_type, self.channels)
            self.state = State.CONNECTING
            self.client_id = resume.client_id
            self.acknowledged = resume.acknowledged
            self._certain.take_over(resume)

    def __repr__(self) -> str:
        return f"Session({self.state}, acked={self.acked})"

    def _send(
        self, purpose: Purpose, messages: list[dict[str, Any]], timeout: float, *, steady: bool = False
    ) -> Send:
        ids, body = self._writer.write(purpose, messages, self.client_id)
        self._request = Request(purpose, ids, self._now, self._now + timeout, steady)
        return Send(purpose, body, timeout)

    def _deliver(self, events: tuple[Message, ...], batch: int | None, request: Request) -> None:
        if not events:
            return
        attempt = 1 if self._held is None else self._held.attempt + 1
        self._held = None
        self._news.tell(
            Delivery(
                events,
                batch,
                self.client_id or "",
                self.acknowledged,
                request.ids[0],
                self._asked_at(request),
                self._wall,
                attempt,
            )
        )

    def _tell_time(self, now: float, wall: float) -> None:
        self._now, self._wall, self._ahead = now, wall, wall - now

    def _asked_at(self, request: Request) -> float:
        """When a request was sent, by the clock of `wall`."""
        return request.sent_at + self._ahead

    def _open(self, granted: tuple[str, ...]) -> None:
        assert self.client_id is not None, "the handshake gave an id"
        self.state = State.CONNECTING
        self._patience.admitted()
        self._certain.begin(self._wall)
        self._news.tell(Opened(self.client_id, self.acknowledged, granted, self.advice, self._wall))

    def _refuse(
        self, reason: str, *, code: int | None = None, status: int | None = None, channel: str | None = None
    ) -> None:
        """Report that we are not let in, and start over after a long pause that grows."""
        self.state = State.HANDSHAKING
        pause = self._wait(self._patience.after_refusal())
        self._news.tell(Refused(reason, code, status, channel, pause, self._wall))

    def _try_again(self, cause: str) -> None:
        self._wait(self._patience.after_failure())
        self._news.failing(cause, self._wall)

    def _lose(self, cause: str) -> None:
        """End the session that the server no longer has, and make for a new one."""
        if self._held is not None:  # the server's copy is gone, ours is the last one
            held, self._held = self._held, None
            self._news.tell(replace(held, batch=None, attempt=held.attempt + 1))
        if self._certain.open:
            assert self.client_id is not None, "an open session has an id"
            self._news.tell(Lost(self.client_id, self.acknowledged, cause, self._certain.since, self._wall))
        self.client_id = None
        self.acknowledged = False
        self._certain.end()
        self.acked = 0
        if self.advice.gives_up:
            self._stop(f"the server forbids to go on: {cause}")
        elif self._closing.begun:
            self._stop(f"lost while closing: {cause}")
        else:
            self.state = State.HANDSHAKING
            self._wait(self._patience.after_loss())

    def _doubt(self, cause: str) -> None:
        """Report the possible gap of a failed poll; an acknowledged session has none."""
        if not self.acknowledged:
            assert self.client_id is not None, "only a session is polled"
            self._news.tell(*self._certain.doubt(self.client_id, cause, self._wall))

    def _wait(self, pause: float) -> float:
        """Send nothing for this long on top of the interval that the server advises."""
        pause += max(0.0, self.advice.interval)
        self._not_before = self._now + pause
        return pause

    def _said(self, reply: Message) -> str:
        return said_in(reply, self.client_id)

    def _stop(self, reason: str, *, kept: bool = False) -> Stopped:
        self.state = State.STOPPED
        self._stopped = Stopped(reason, self._certain.since, kept)
        return self._stopped
