"""What a client hands to its consumer: deliveries of events, and facts about the session between them.

All come through one iterator (`Client.deliveries`), so their order is the order in which things happened.
Times (`at`, `since`) are wall-clock seconds since 1970, by the clock of this machine.

A session is a span of certainty: from `Opened` on, every event of its channels is delivered, until `Lost`.
The gap after a loss runs from `Lost.since` to the next `Opened`. In a session without acknowledgement a
`PossibleGap` runs from its `since` to the `Resumed` that follows, or to the next `Opened` if the session is
lost first. `since` is the moment when the last connect was sent that has a good response whose events were
confirmed. The server wrote that response some time later, when cannot be known here; but what it published
before the request came is in that response, or was in one before.

Client ids are secrets: they are in the fields, never in the repr.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from service.cometd.advice import Advice
from service.cometd.framing import Message
from service.errors import BadInput


@dataclass(slots=True)
class Delivery:
    """Events of one response, in order.

    Call `confirm` once they are durable. An unconfirmed delivery comes again.

    `batch`: the number under which the server filed them; the next connect acknowledges it, if confirmed.
    None when the server keeps no copy: the session has no acknowledgement or is over, or the events did not
    come in a connect response. Then the same object comes again until it is confirmed.
    `client_id`, `acknowledged`: the session, and whether it has the acknowledgement extension.
    `request_id`: the id of the request answered, None if the events came unasked.
    `asked_at`: when the request was sent that the response answers. `at`: when that had been read.
    `attempt`: 1, or how many times in a row the consumer has been given these events, with those that joined
    them since. A stalled consumer can count its stall by it.

    Redelivery repeats the same events first, in the same order, byte for byte as far as servers are known,
    but under a new `batch` and perhaps with newer ones behind them. So the k-th event confirmed in a
    session is the same event whenever it comes: count them, and that is an id.
    """

    messages: tuple[Message, ...]
    batch: int | None
    client_id: str = field(repr=False)
    acknowledged: bool
    request_id: str | None
    asked_at: float
    at: float
    attempt: int = 1
    confirmed: bool = False

    def confirm(self) -> None:
        """Say that the events are durable here and need not come again."""
        self.confirmed = True


@dataclass(frozen=True, slots=True)
class Opened:
    """A new session is subscribed; events are delivered from here on.

    `channels` are those that the server granted; a `Refused` stands before for each of the others.
    """

    client_id: str = field(repr=False)
    acknowledged: bool
    channels: tuple[str, ...]
    advice: Advice
    at: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """A session goes on: taken over from an earlier process, or polled again after a `PossibleGap`.

    `since`: the end of the certain span before it, None if not known.
    """

    client_id: str = field(repr=False)
    acknowledged: bool
    since: float | None
    at: float


@dataclass(frozen=True, slots=True)
class PossibleGap:
    """A poll failed that may have carried events, and the server keeps no copy of what it sent.

    It runs from `since` (None if not known) to the next `Resumed` or `Opened`.
    """

    client_id: str = field(repr=False)
    cause: str
    since: float | None
    at: float


@dataclass(frozen=True, slots=True)
class Lost:
    """The session is over without our doing.

    The gap runs from `since` (None if not known) to the next `Opened`.
    """

    client_id: str = field(repr=False)
    acknowledged: bool
    cause: str
    since: float | None
    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The server does not let us in. It will be asked again in `retry_in` seconds, which grows.

    `channel`: the channel whose subscription was refused; None when it is the handshake or everything.
    `retry_in` is None for a channel refused while others were granted: it is asked for in the next session.
    `code`: the Bayeux error code, `status`: the HTTP status, as far as there was one.
    """

    reason: str
    code: int | None
    status: int | None
    channel: str | None
    retry_in: float | None
    at: float


@dataclass(frozen=True, slots=True)
class Failing:
    """A request got no usable answer, and is tried again by itself.

    Told when the cause is news, until a poll succeeds. By itself it is no gap.
    """

    cause: str
    at: float


@dataclass(frozen=True, slots=True)
class MultipleClients:
    """The server says that another client shares our cookies, and slows both down. Told once a session."""

    client_id: str = field(repr=False)
    advice: Advice
    at: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """A body that would not parse. None of it was delivered; `body` is all there is of it.

    A session with acknowledgement gets its events again; in one without, a `PossibleGap` follows.
    """

    body: bytes = field(repr=False)
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last item: nothing more is sent. A new client is needed to go on.

    `since`: the end of the certain span, as in `Lost`; None if there was no session.
    `kept`: the server's session was left alone, so that a successor can take it up.
    """

    reason: str
    since: float | None
    kept: bool


Item = (
    Delivery
    | Opened
    | Resumed
    | PossibleGap
    | Lost
    | Refused
    | Failing
    | MultipleClients
    | Evidence
    | Stopped
)


@dataclass(frozen=True, slots=True)
class ResumeState:
    """All it takes for another process to go on with a session, beside the last confirmed batch.

    Plain values, to be stored as the credentials they are. `cookies` is `Cookies.dump()`. `since` is the end
    of the certain span.

    `idle` says that no poll was under way, as after a close in good order, so that without acknowledgement
    too nothing can have been lost on the wire. That is true once: before you start a successor from it, store
    it again with `idle` false, lest a third process believe it after the second has crashed.
    """

    client_id: str = field(repr=False)
    cookies: tuple[Mapping[str, str | float | bool | None], ...] = field(repr=False)
    connection_type: str
    acknowledged: bool
    channels: tuple[str, ...]
    since: float | None
    idle: bool

    def check_fits(self, connection_type: str, channels: Collection[str]) -> None:
        """Raise `BadInput` unless the session was held over that transport and for these channels."""
        if connection_type != self.connection_type:
            raise BadInput(
                "resume.connection_type",
                f"the session was held over {self.connection_type}",
                f"Resume it over that transport, or start without it over {connection_type}",
            )
        if set(channels) != set(self.channels):
            raise BadInput(
                "resume.channels",
                "the session was subscribed to other channels",
                "Resume it with the channels it had, or start a new session",
            )
