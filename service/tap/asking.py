"""Requests of the tap's own to the server, each over a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from service.errors import AnswerLost, BadHttp, NotSent
from service.tap.bodies import cut, response_body
from service.tap.heads import LONGEST_HEAD, ResponseHead, parse_response
from service.tap.upstream import Upstream
from service.tap.wire import Bell, Wire

LARGEST_ANSWER = 8 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer: its head, its body's content, and its body as it came, chunks and all."""

    head: ResponseHead
    content: bytes
    raw: bytes


async def ask(
    upstream: Upstream,
    request: bytes,
    method: bytes,
    timeout_s: float,
    *,
    may_send: Callable[[], Awaitable[bool]] | None = None,
) -> Answered:
    """Send a request, once, and read its answer; `may_send` is asked when the connection stands.

    Raises:
        NotSent: not a byte has left.
        AnswerLost: it may have reached the server, and no whole answer came.

    """
    bell = Bell()
    try:
        wire = await upstream.connect(bell)
    except BadHttp as error:
        raise NotSent(str(error)) from error
    try:
        if may_send is not None and not await may_send():
            raise NotSent("held back, its sender had lost its claim")
        wire.write(request)
        async with asyncio.timeout(timeout_s):
            return await _read(wire, bell, method)
    except BadHttp as error:
        raise AnswerLost(f"the server's answer: {error}") from error
    except TimeoutError as error:
        raise AnswerLost(f"no answer within {timeout_s} s") from error
    finally:
        wire.abort()


async def _read(wire: Wire, bell: Bell, method: bytes) -> Answered:
    head = await _read_head(wire, bell)
    while 100 <= head.status < 200:
        head = await _read_head(wire, bell)
    body = response_body(head, method, keep=LARGEST_ANSWER)
    raw = bytearray()
    while not body.done:
        piece = body.take(wire.buffer)
        raw += piece
        if piece:
            wire.taken()
        elif body.kept is None:
            raise AnswerLost(f"the answer exceeds {LARGEST_ANSWER} bytes")
        elif not wire.ended:
            await bell.wait()
        elif not body.end():
            raise AnswerLost("the connection ended within the answer")
    return Answered(head, body.kept or b"", bytes(raw))


async def _read_head(wire: Wire, bell: Bell) -> ResponseHead:
    while (end := wire.buffer.find(b"\r\n\r\n", 0, LONGEST_HEAD)) < 0:
        if len(wire.buffer) >= LONGEST_HEAD:
            raise AnswerLost("the answer's head is too long")
        if wire.ended:
            raise AnswerLost("the connection ended without an answer")
        await bell.wait()
    head = parse_response(cut(wire.buffer, end + 4)[:-4])
    wire.taken()
    return head
