"""Plays the server and the consumer to the state machine. No sockets, no clock but a number."""

from __future__ import annotations

import json
import random
from typing import Any

from service.cometd import (
    Delivery,
    Failing,
    Item,
    Purpose,
    ResumeState,
    Session,
    Stopped,
    split,
)
from service.cometd.actions import Finish, Listen, Pause, Send
from service.errors import CometdError, TransportFailed

CALLS = "/v2/me/calls"
RETRY = {"reconnect": "retry", "interval": 0, "timeout": 20000}
UNKNOWN = {"successful": False, "error": "402::Unknown client"}


def event(n: int) -> dict[str, Any]:
    return {"channel": CALLS, "data": n}


def numbers(delivery: Item) -> list[int]:
    assert isinstance(delivery, Delivery)
    return [message.data for message in delivery.messages]


class Play:
    """Plays the server and the consumer to one session. Time passes only in pauses and by `now`."""

    def __init__(self, *, ack: bool = True, channels: tuple[str, ...] = (CALLS,), **options: Any) -> None:
        self.session = Session(channels, rng=random.Random(4), **options)
        self.ack = ack
        self.batch = 0
        self.now = 1000.0
        self.paused = 0.0
        self.sent: list[dict[str, Any]] = []
        self.timeout = 0.0
        self.failing: list[str] = []

    @property
    def wall(self) -> float:
        return self.now + 1e9

    def next(self) -> Purpose | Stopped:
        """Go on to the next request, or the end, noting the pause before it."""
        self.paused = 0.0
        while True:
            match self.session.next(self.now):
                case Pause(seconds=seconds):
                    self.paused += seconds
                    self.now += seconds
                case Send(purpose=purpose, body=body, timeout=timeout):
                    self.sent, self.timeout = json.loads(body), timeout
                    return purpose
                case Finish(stopped=stopped):
                    return stopped
                case Listen():
                    raise AssertionError("a request is under way")

    def reply(
        self, *replies: dict[str, Any], before: tuple[Any, ...] = (), after: tuple[Any, ...] = ()
    ) -> list[Item]:
        """Answer what was sent last: one reply to each message, or the same to all."""
        given = replies * len(self.sent) if len(replies) == 1 else replies
        answers = [
            {"id": sent["id"], "channel": sent["channel"], **reply}
            for sent, reply in zip(self.sent, given, strict=True)
        ]
        return self.raw([*before, *answers, *after])

    def raw(self, body: Any) -> list[Item]:
        return self.told(self.session.answered(split(json.dumps(body).encode()), self.now, self.wall))

    def fail(self, error: CometdError | None = None) -> list[Item]:
        return self.told(self.session.failed(error or TransportFailed("cut"), self.now, self.wall))

    def told(self, items: list[Item]) -> list[Item]:
        """Set aside what is said of requests that fail."""
        self.failing += [item.cause for item in items if isinstance(item, Failing)]
        return [item for item in items if not isinstance(item, Failing)]

    def shake(self, client_id: str = "c1", **more: Any) -> list[Item]:
        assert self.next() is Purpose.HANDSHAKE
        ext = {"ext": {"ack": True}} if self.ack else {}
        return self.reply({"successful": True, "clientId": client_id, "advice": RETRY, **ext, **more})

    def open(self, client_id: str = "c1") -> list[Item]:
        self.shake(client_id)
        assert self.next() is Purpose.SUBSCRIBE
        return self.reply({"successful": True})

    def poll(self, *events: int, **more: Any) -> list[Item]:
        """Answer the next connect with these events."""
        assert self.next() is Purpose.CONNECT
        self.batch += 1
        ext = {"ext": {"ack": self.batch}} if self.ack else {}
        return self.reply({"successful": True, **ext, **more}, before=tuple(event(n) for n in events))

    def confirm(self, *items: Item) -> None:
        for item in items:
            if isinstance(item, Delivery):
                item.confirm()
                self.session.confirmed(item)

    def steady(self) -> None:
        """Come to the steady state."""
        self.open()
        self.confirm(*self.poll())


def resume_state(**changes: Any) -> ResumeState:
    fields: dict[str, Any] = {
        "client_id": "c1",
        "cookies": (),
        "connection_type": "long-polling",
        "acknowledged": True,
        "channels": (CALLS,),
        "since": 5.0,
        "idle": False,
    }
    return ResumeState(**{**fields, **changes})
