"""Reading what CometD's bodies hold; never what is passed on."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from service.cometd import Message, split
from service.errors import ProtocolViolation

LARGEST_ANSWER = 32 << 20  # bytes, when inflated


def client_of(messages: Sequence[Message]) -> str | None:
    """The client id that messages name."""
    for message in messages:
        client_id = message.fields.get("clientId")
        if type(client_id) is str:
            return client_id
    return None


def batch_of(reply: Message) -> int | None:
    """The number under which the server files an answer's events (the acknowledgement extension)."""
    ack = reply.ext.get("ack")
    if type(ack) is dict:
        ack = ack.get("batch", 0)
    return ack if type(ack) is int else None


def read_messages(body: bytes, coding: str | None) -> tuple[Message, ...]:
    """The messages of a body, inflated if it comes in a coding.

    Raises:
        ProtocolViolation: they cannot be read.

    """
    return split(inflate(body, coding)) if body else ()


def inflate(body: bytes, coding: str | None) -> bytes:
    """A body without its content coding (RFC 9110 §8.4).

    Raises:
        ProtocolViolation: the coding is not known here, or more comes out than is looked at.

    """
    name = (coding or "identity").strip().lower()
    if name == "identity":
        return body
    if name not in {"gzip", "x-gzip", "deflate"}:
        raise ProtocolViolation(f"the content coding {name[:40]} is not read here", body=body)
    inflating = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = inflating.decompress(body, LARGEST_ANSWER)
    except zlib.error as error:
        raise ProtocolViolation(f"the body cannot be inflated ({error})", body=body) from error
    if inflating.unconsumed_tail or not inflating.eof:
        raise ProtocolViolation("the body is too large when inflated, or cut off", body=body)
    return plain
