"""What the replies to a request say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from service.cometd.actions import Purpose
from service.cometd.framing import Message
from service.cometd.requests import Request

# Bayeux error codes are those of HTTP in meaning.
UNAUTHENTICATED, UNKNOWN_SESSION, FORBIDDEN = 401, 402, 403
SERVER_TROUBLE = 500

_LONGEST = 500  # characters of an error's text


class Grants(NamedTuple):
    """What became of a subscribe: channels granted, those denied with the reply to each.

    `lost`: a reply that says the session is gone; `troubled`: one that says the server could not do it now.
    """

    granted: tuple[str, ...]
    denied: tuple[tuple[str, Message], ...]
    lost: Message | None
    troubled: Message | None


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


def grants_of(channels: Sequence[str], request: Request, replies: Mapping[str, Message]) -> Grants:
    """Sort the replies to a subscribe."""
    asked = [(channel, replies[i]) for channel, i in zip(channels, request.ids, strict=True)]
    denied = tuple((channel, reply) for channel, reply in asked if not reply.successful)
    return Grants(
        tuple(channel for channel, reply in asked if reply.successful),
        denied,
        next((reply for _, reply in denied if is_loss(reply)), None),
        next((reply for _, reply in denied if (reply.error[0] or 0) >= SERVER_TROUBLE), None),
    )


def unfit(reply: Message, connection_type: str) -> str:
    """Say why a successful reply to a handshake is of no use; nothing if it is."""
    client_id, types = reply.fields.get("clientId"), reply.fields.get("supportedConnectionTypes")
    if not isinstance(client_id, str) or not client_id:
        return "the handshake was answered without a client id"
    if isinstance(types, list) and connection_type not in types:
        return f"the server does not offer {connection_type}"
    return ""


def said_in(reply: Message, client_id: str | None) -> str:
    """Give a reply's error for people: in printable characters, not too many, and without the client id.

    Some servers put the client id into it.
    """
    code, text = reply.error
    if client_id:
        text = text.replace(client_id, "…")
    text = "".join(character if character.isprintable() else "�" for character in text[:_LONGEST])
    return " ".join(part for part in (str(code or ""), text) if part) or "no error given"


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
