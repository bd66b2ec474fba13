"""One client's connection, from its first request to its end.

Each client has a connection to the server for itself. So what the server does to a connection (breaking it in
the middle of an answer, ending it after one, binding a login to it) the client sees as it would without the
tap, and no request is ever repeated. A connection that the server has closed while it was idle is replaced
when the next request comes: nothing of that one has been sent, and the client is spared the race.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from service.errors import BadHttp, PeerGone
from service.tap.bodies import Body, UntilClose, cut, request_body, response_body
from service.tap.exchange import Exchange, FrameInterest, Interest
from service.tap.heads import LONGEST_HEAD, RequestHead, parse_request, parse_response
from service.tap.relay import relay, relay_frames
from service.tap.upstream import Upstream
from service.tap.wire import Wire

logger = logging.getLogger(__name__)

HEAD_S = 30.0  # how long a request's head may take from its first byte
FIRST_S, IDLE_S = 60.0, 900.0  # how long a connection may be silent, new and between two requests
STALL_S = 120.0  # how long a client may take nothing of an answer, or send nothing of a body
MOST_HELD = 16 << 20  # bytes of an answer that is held back until it is recorded
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Whole(Protocol):
    """Answers some requests itself, once it has them whole (see `Site.whole`)."""

    most: int

    async def answer(self, request: RequestHead, body: bytes, raw: bytes) -> bytes | None:
        """The answer's bytes; None if the request is to be passed on like any other."""
        ...


class Site(Protocol):
    """What a visit needs to know of the tap."""

    upstream: Upstream
    draining: bool

    def whole(self, request: RequestHead) -> Whole | None:
        """Who wants this request whole before it is passed on."""
        ...

    def interest(self, request: RequestHead) -> Interest | None: ...

    def frames(self, request: RequestHead) -> FrameInterest | None: ...


class Visit:
    """Serves the client on `client`, whose bell the connection to the server rings too."""

    def __init__(self, site: Site, client: Wire) -> None:
        self._site = site
        self._client = client
        self._bell = client.bell
        self._server: Wire | None = None
        self._served = False  # a request has come before
        self._answering = False  # some of an answer has been written

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        try:
            while await self._serve_one():
                pass
        except BadHttp as error:
            logger.info("not passed on", extra={"client": self._client.peer, "fault": str(error)})
            if self._answering:
                self._client.abort()
            else:
                self._client.write(refusal(error))
        except (PeerGone, TimeoutError):
            self._client.abort()
        finally:
            self._client.close()
            if self._server is not None:
                self._server.close()

    async def _serve_one(self) -> bool:
        """Serve one request; whether another may come."""
        self._answering = False
        request = await self._next_request()
        if request is None:
            return False
        if request.upgrades:
            return await self._pass_socket(request)
        whole = self._site.whole(request)
        if whole is not None:
            return await self._serve_whole(request, whole)
        interest = self._site.interest(request)
        body = request_body(request, keep=interest.keep_request if interest else 0)
        return await self._pass(Exchange(request, body), interest)

    # Requests

    async def _next_request(self) -> RequestHead | None:
        """The next request's head; None when the client has ended the connection."""
        client, limit = self._client, IDLE_S if self._served else FIRST_S
        while not client.buffer:
            if client.ended:
                return None
            async with asyncio.timeout(limit):
                await self._bell.wait()
        async with asyncio.timeout(HEAD_S):
            while True:
                while client.buffer.startswith(b"\r\n"):  # RFC 9112 §2.2: an empty line may come before
                    del client.buffer[:2]
                end = client.buffer.find(b"\r\n\r\n", 0, LONGEST_HEAD)
                if end >= 0:
                    break
                if len(client.buffer) >= LONGEST_HEAD:
                    raise BadHttp(431, f"a head of more than {LONGEST_HEAD} bytes")
                if client.ended:
                    return None
                await self._bell.wait()
        self._served = True
        head = cut(client.buffer, end + 4)
        client.taken()
        return parse_request(head[:-4])

    async def _serve_whole(self, request: RequestHead, whole: Whole) -> bool:
        """Read the whole request, as far as it is not too large, and let `whole` answer it or not."""
        body = request_body(request, keep=whole.most)
        if b"100-continue" in request.tokens(b"expect") and not body.done:
            request.without(b"expect")
            self._client.write(CONTINUE)
        raw = bytearray()
        while not body.done and body.kept is not None:
            piece = body.take(self._client.buffer)
            if piece:
                raw += piece
                self._client.taken()
                continue
            if self._client.ended:
                raise PeerGone("the client")
            async with asyncio.timeout(STALL_S):
                await self._bell.wait()
        closing = request.closes or self._site.draining
        answer = None
        if body.done and body.kept is not None:
            answer = await whole.answer(request, body.kept, bytes(raw))
        if answer is None:
            return await self._pass(Exchange(request, body), self._site.interest(request), begun=bytes(raw))
        self._client.write(answer)
        await self._drained()
        return not closing

    # Passing on

    async def _connected(self) -> Wire:
        if self._server is not None and self._server.ended:
            self._server.close()
            self._server = None
        if self._server is None:
            self._server = await self._site.upstream.connect(self._bell)
        return self._server

    async def _pass(self, exchange: Exchange, interest: Interest | None, *, begun: bytes = b"") -> bool:
        """Pass a request on, and its answer back."""
        request = exchange.request
        server = await self._connected()
        closing = request.closes
        request.for_server(self._site.upstream.host)
        server.write(request.render() + begun)
        held: bytearray | None = bytearray() if interest is not None and interest.holds else None
        keep = interest.keep_answer if interest is not None else 0
        to_tell = interest
        try:
            while exchange.answer is None or not exchange.answer.done:
                moved = self._pass_body(exchange.asked, server)
                if to_tell is not None and exchange.asked.done:
                    to_tell.asked(exchange)
                    to_tell = None
                moved |= self._pass_answer(exchange, server, keep, held)
                if not moved:
                    self._check_peers(exchange, server)
                    await self._wait(exchange)
        except (BadHttp, PeerGone, TimeoutError):
            if interest is not None:
                await interest.ended(exchange)
            raise
        if interest is not None:
            await interest.ended(exchange)
        assert exchange.response is not None
        if held is not None:
            self._answering = True
            self._client.write(bytes(held))
        await self._drained()
        return not (
            closing
            or exchange.response.closes
            or isinstance(exchange.answer, UntilClose)
            or not exchange.asked.done
            or self._site.draining
        )

    def _pass_body(self, body: Body, server: Wire) -> bool:
        """Pass on what has come of the request's body; whether that was anything."""
        if body.done or server.full:
            return False
        piece = body.take(self._client.buffer)
        if piece:
            self._client.taken()
            server.write(piece)
        return bool(piece)

    def _pass_answer(self, exchange: Exchange, server: Wire, keep: int, held: bytearray | None) -> bool:
        """Pass on, or hold back, what has come of the answer; whether that was anything."""
        if self._client.full:
            return False
        try:
            if exchange.answer is None:
                piece = self._take_head(exchange, server, keep)
            else:
                piece = exchange.answer.take(server.buffer)
        except BadHttp as error:
            raise BadHttp(502, f"the server's answer: {error}") from error
        if not piece:
            return False
        server.taken()
        if held is None or exchange.answer is None:
            self._answering |= exchange.answer is not None
            self._client.write(piece)
        else:
            held += piece
            if len(held) > MOST_HELD:
                raise BadHttp(502, "an answer is too large to be recorded")
        return True

    def _take_head(self, exchange: Exchange, server: Wire, keep: int) -> bytes:
        """Take a response's head; an interim one (RFC 9110 §15.2) is not yet the answer."""
        end = server.buffer.find(b"\r\n\r\n", 0, LONGEST_HEAD)
        if end < 0:
            if len(server.buffer) >= LONGEST_HEAD:
                raise BadHttp(502, f"a head of more than {LONGEST_HEAD} bytes")
            return b""
        response = parse_response(cut(server.buffer, end + 4)[:-4])
        if response.status >= 200 or response.status == 101:
            exchange.response = response
            exchange.answer = response_body(response, exchange.request.method, keep=keep)
            response.for_client(closing=self._site.draining)
        return response.render()

    def _check_peers(self, exchange: Exchange, server: Wire) -> None:
        """Nothing moves: see whether that is because somebody has gone."""
        if self._client.ended:
            raise PeerGone("the client")
        if server.ended and not (exchange.answer is not None and exchange.answer.end()):
            raise PeerGone("the server")

    async def _wait(self, exchange: Exchange) -> None:
        if exchange.answer is not None and exchange.answer.done:
            return
        waits_for_client = self._client.full or not exchange.asked.done
        async with asyncio.timeout(STALL_S if waits_for_client else None):
            await self._bell.wait()

    async def _drained(self) -> None:
        """Wait until the client has taken what was written, all but a buffer of it."""
        while self._client.full:
            async with asyncio.timeout(STALL_S):
                await self._bell.wait()

    async def _pass_socket(self, request: RequestHead) -> bool:
        """Pass an upgrade on and, if the server agrees, the frames both ways until either side ends."""
        interest = self._site.frames(request)
        exchange = Exchange(request, request_body(request))
        again = await self._pass(exchange, None)
        response, server = exchange.response, self._server
        if response is None or response.status != 101 or server is None:
            return again
        self._answering = True
        if interest is None:
            await relay(self._client, server)
        else:
            await relay_frames(self._client, server, response, interest)
        return False


def refusal(error: BadHttp) -> bytes:
    """The answer to a request that is not passed on; it ends the connection."""
    text = f"calltrail: {error}\n".encode()
    reason = REASONS.get(error.status, "Refused")
    head = (
        f"HTTP/1.1 {error.status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + text


REASONS = {
    400: "Bad Request",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
