"""What is not HTTP/1.1 in one reading only reaches nobody, and nothing reaches any host but the server."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_peers import RawServer, plain_tap, raw_client
from tapping import application, tapped

from service.errors import BadHttp
from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator
from service.tap.bodies import Chunked
from service.tap.frames import Messages
from service.tap.heads import parse_request, understood_path

INNER = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"
REFUSED = {
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + INNER,
    "two lengths": POST + b"Content-Length: 4\r\nContent-Length: 0\r\n\r\nabcd" + INNER,
    "two equal lengths": POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": POST + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": POST + b"Content-Length: +4\r\n\r\nabcd",
    "a negative length": POST + b"Content-Length: -1\r\n\r\nabcd",
    "a length in hex": POST + b"Content-Length: 0x4\r\n\r\nabcd",
    "a length of other digits": POST + b"Content-Length: \xd9\xa4\r\n\r\nabcd",
    "a length too long": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "an empty length": POST + b"Content-Length: \r\n\r\n" + INNER,
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "codings in a list": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n",
    "a quoted coding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a tab before the colon": POST + b"Content-Length\t: 4\r\n\r\nabcd",
    "a folded line": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded first line": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a bare line feed": POST + b"X: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare carriage return": POST + b"X: 1\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a NUL in a value": POST + b"X: a\x00b\r\n\r\n",
    "a NUL in a name": POST + b"X\x00: a\r\n\r\n",
    "a field without a name": POST + b": a\r\n\r\n",
    "a line that is no field": POST + b"nonsense\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n",
    "another's address": b"GET http://elsewhere.example/ HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n",
    "an authority": b"GET elsewhere.example:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n",
    "a file": b"GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab for a space": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "bytes in the target": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "hop-by-hop Cookie": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Cookie\r\nCookie: a=1\r\n\r\n",
    "hop-by-hop length": POST + b"Connection: content-length\r\nContent-Length: 4\r\n\r\nabcd",
    "too many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: 1\r\n" * 300 + b"\r\n",
    "a huge field": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "a huge target": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "an endless head": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20_000,
}
BAD_CHUNKS = {
    "no number": b"xyz\r\nabc\r\n0\r\n\r\n",
    "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a bare line feed": b"3\nabc\r\n0\r\n\r\n",
    "a bare line feed in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "too long for its size": b"3\r\nabcdef\r\n0\r\n\r\n",
    "a huge size": b"fffffffffffffffff\r\nabc",
    "a long extension": b"3;" + b"a" * 1000 + b"\r\nabc\r\n0\r\n\r\n",
    "a trailer that frames": b"0\r\nContent-Length: 5\r\n\r\n",
    "a trailer that is no field": b"0\r\nno field\r\n\r\n",
    "endless trailers": b"0\r\n" + b"X: 1\r\n" * 3000 + b"\r\n",
    "a space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("asked", REFUSED.values(), ids=REFUSED)
async def test_what_leaves_something_open_is_refused_and_reaches_nobody(asked: bytes) -> None:
    async with RawServer() as server, plain_tap(server.url) as tap, raw_client(tap.url) as client:
        client.writer.write(asked)
        answer = await client.rest()
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501 ")) or answer == b"reset"
        assert answer.count(b"HTTP/1.1 ") <= 1
        assert b"GET" not in server.received
        assert b"POST" not in server.received


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_a_body_whose_end_could_be_seen_elsewhere_is_broken_off_before_it(chunks: bytes) -> None:
    async def script(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        server.received += await reader.read()

    async with (
        RawServer(script=script) as server,
        plain_tap(server.url) as tap,
        raw_client(tap.url) as client,
    ):
        client.writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + INNER)
        answer = await client.rest()
        await server.left()
        assert answer.startswith(b"HTTP/1.1 4") or answer == b"reset"
        assert b"smuggled" not in server.received
        assert not server.received.endswith(b"0\r\n\r\n")


def test_a_chunk_ends_where_its_size_says() -> None:
    with pytest.raises(BadHttp, match="longer than its size"):
        Chunked().take(bytearray(b"3\r\nabcde"))


async def test_what_follows_a_request_is_the_next_request_and_never_part_of_it() -> None:
    async with RawServer() as server, plain_tap(server.url) as tap, raw_client(tap.url) as client:
        first = POST + b"Content-Length: 3\r\n\r\nabc"
        answers = await client.ask(first + INNER, 2 * len(server.answer))
        assert answers == 2 * server.answer
        assert server.received.count(b"abc") == server.received.count(b"/smuggled") == 1


async def test_an_answer_that_leaves_something_open_is_not_passed_on() -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ):
        async with RawServer(answer) as server, plain_tap(server.url) as tap, raw_client(tap.url) as client:
            client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            told = await client.rest()
            assert told.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
            assert told.endswith(b"\n")


async def test_slow_clients_hold_nothing_up_and_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.tap.visit.HEAD_S", 0.2)
    monkeypatch.setattr("service.tap.visit.STALL_S", 0.2)
    async with (
        RawServer() as server,
        plain_tap(server.url) as tap,
        raw_client(tap.url) as slow,
        raw_client(tap.url) as stalled,
        raw_client(tap.url) as quick,
    ):
        slow.writer.write(b"GET / HTTP/1.1\r\nHost")
        stalled.writer.write(POST + b"Content-Length: 10\r\n\r\nabc")
        assert await quick.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 40) == server.answer
        assert await slow.rest() in {b"", b"reset"}
        assert await stalled.rest() in {b"", b"reset"}


@pytest.mark.parametrize(
    "path",
    [
        "/api/v2/me/calls/../../me/calls/{id}",
        "//api//v2/me/./calls/{id}",
        "/api/v2/me/calls/{id};jsessionid=1",
        "/api/v2/me;x=y/calls/{id}",
        "/api/v2/%6de/calls/{id}",
        "/api/v2/me/calls/x%2f..%2f{id}",
        "/api/v2/me/calls/{id}?a=/../b",
        "/api/v2/me/calls/{id}/",
    ],
)
def test_a_path_is_understood_as_servers_may(path: str) -> None:
    assert understood_path(path.format(id="01A").encode()) == "/api/v2/me/calls/01A"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_no_head_makes_it_stumble(head: bytes) -> None:
    for asked in (head, b"GET / HTTP/1.1\r\nHost: x\r\n" + head):
        try:
            request = parse_request(asked)
            request.for_server(b"gws")
            _ = request.closes, request.is_chunked, request.length
        except BadHttp:
            continue
        assert b"\n" not in request.render().replace(b"\r\n", b"")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_chunks_are_seen_alike_in_one_piece_and_in_many(body: bytes, step: int) -> None:
    def read(pieces: list[bytes]) -> tuple[bytes, bytes | None, bool] | str:
        chunked, buffer, passed = Chunked(keep=1000), bytearray(), b""
        try:
            for piece in pieces:
                buffer += piece
                passed += chunked.take(buffer)
        except BadHttp as error:
            return str(error)
        return passed, chunked.kept, chunked.done

    whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    for text in (whole, body):
        assert read([text]) == read([text[at : at + step] for at in range(0, len(text), step)])
    assert read([whole]) == (whole, body, True)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_frame_makes_it_stumble(data: bytes) -> None:
    messages, buffer = Messages(deflate=True, takeover=True, longest=1000), bytearray(data)
    try:
        while (taken := messages.take(buffer)) is not None:
            assert taken.raw
    except BadHttp:
        return


async def test_noise_does_not_end_it_and_is_not_recorded(database: Database, log: EventLog) -> None:
    rng = random.Random(7)
    async with Simulator(seed=1) as simulator, tapped(database, log, simulator) as site:
        for _ in range(60):
            async with raw_client(site.tap.url) as client:
                head = rng.choice(
                    (b"", b"POST /api/v2/notifications HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n")
                )
                client.writer.write(head + rng.randbytes(50))
                if client.writer.can_write_eof():
                    client.writer.write_eof()
                await client.rest()
        assert set(await site.kinds()) <= {"UnreadableReceived"}
        async with application(simulator, site.tap.url) as agent:
            assert (await agent.get("/api/v2/me"))[0] == 200
