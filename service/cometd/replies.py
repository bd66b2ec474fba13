"""What the replies to a request say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.cometd.actions import Purpose
from service.cometd.framing import Message

# Bayeux error codes are those of HTTP in meaning.
UNAUTHENTICATED, UNKNOWN_SESSION, FORBIDDEN = 401, 402, 403
SERVER_TROUBLE = 500


@dataclass(frozen=True, slots=True)
class Request:
    """What is under way. `ids` are in the order of the channels for a subscribe."""

    purpose: Purpose
    ids: tuple[str, ...]
    sent_at: float
    deadline: float
    steady: bool


def replies_to(metas: Sequence[Message], request: Request, channels: Sequence[str]) -> dict[str, Message]:
    """Find the replies to a request, by id. A server that omits ids is matched by what it answers to."""
    found: dict[str, Message] = {}
    for message in metas:
        if message.channel != f"/meta/{request.purpose}":
            continue
        reply_id = message.id
        if reply_id is None and request.purpose is Purpose.SUBSCRIBE:
            by_channel = dict(zip(channels, request.ids, strict=True))
            reply_id = by_channel.get(str(message.fields.get("subscription")))
        elif reply_id is None:
            reply_id = request.ids[0]
        if reply_id in request.ids:
            found[str(reply_id)] = message
    return found


def is_goodbye(message: Message) -> bool:
    return message.channel == "/meta/disconnect"


def is_loss(reply: Message) -> bool:
    """Whether an unsuccessful reply says that the server does not know the session, or us."""
    code, text = reply.error
    return code in (UNAUTHENTICATED, UNKNOWN_SESSION) or (
        code == FORBIDDEN and "unknown client" in text.lower()
    )


def negotiated(reply: Message) -> tuple[bool, int | None]:
    """Return whether the server acknowledges, and the batch of the events that came with the handshake."""
    ack = reply.ext.get("ack")
    if isinstance(ack, dict) and ack.get("enabled") is True:
        batch = ack.get("batch")
        return True, batch if type(batch) is int else None
    return ack is True, None


def batch_of(reply: Message) -> int | None:
    batch = reply.ext.get("ack")
    return batch if type(batch) is int else None
