"""What goes through the tap is the same, byte for byte, as without it."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from raw_peers import DEADLINE_S, RawServer, plain_tap, raw_client

from service.errors import BadConfig
from service.tap.upstream import Upstream, server_tls

ODD_HEADERS = (
    b"X-Odd:no space\r\nx-oDD-caSE:   many   spaces  \r\nX-Twice: 1\r\nX-Twice: 2\r\nX-Empty:\r\n"
    b'X-Latin: \xe4\xf6\xfc\r\nCookie: a=1; b="2"\r\nAuthorization: Basic MTUwMDA6c2VjcmV0\r\n'
)
REQUESTS = {
    "get": b"GET /api/v2/me?a=%20b&c=//..;x HTTP/1.1\r\nHost: {host}\r\n" + ODD_HEADERS + b"\r\n",
    "post": b"POST /api/v2/me HTTP/1.1\r\nhOST: {host}\r\nContent-Length: 5\r\nX-CSRF-TOKEN: t\r\n\r\n"
    b"\x00\xff\r\n1",
    "keep-alive": b"PUT /x HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    "other method": b"PROPFIND /a/../b HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n",
}
ANSWERS = {
    "sized": b"HTTP/1.1 200 OK\r\nserver: Jetty\r\nSet-Cookie: a=1; Path=/\r\nset-cookie: b=2\r\n"
    b"X-Odd:   x\r\nContent-Length: 4\r\n\r\n\x00\x01\x02\x03",
    "chunked": b"HTTP/1.1 200 Fine, thanks\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    b"4;ext=1\r\nabcd\r\n0a\r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/saml?x=1\r\n"
    b"Content-Length: 0\r\n\r\n",
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "no reason": b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
async def test_requests_and_answers_are_the_same_bytes_with_and_without(asked: bytes, answer: bytes) -> None:
    async with RawServer(answer) as server, plain_tap(server.url) as tap:
        asked = asked.replace(b"{host}", server.url.encode().partition(b"//")[2])
        seen = []
        for url in (server.url, tap.url):
            server.received.clear()
            async with raw_client(url) as client:
                answers = [await client.ask(asked, len(answer)) for _ in range(2)]
            seen.append((bytes(server.received), answers))
        assert seen[0] == seen[1]
        assert server.connections == 2


async def test_the_server_sees_its_own_name_or_the_clients() -> None:
    asked = b"GET / HTTP/1.1\r\nHOST: tap.example:8383\r\n\r\n"
    for keep_host, host in ((False, "127.0.0.1:"), (True, "tap.example:8383")):
        async with RawServer() as server, plain_tap(server.url, keep_host=keep_host) as tap:
            async with raw_client(tap.url) as client:
                await client.ask(asked, len(server.answer))
            assert f"HOST: {host}".encode() in server.received


async def test_fields_of_one_connection_are_not_passed_on() -> None:
    asked = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Mine, Upgrade\r\nX-Mine: 1\r\n"
        b"TE: trailers\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABk\r\nX-Stays: 1\r\n\r\n"
    )
    async with RawServer() as server, plain_tap(server.url) as tap, raw_client(tap.url) as client:
        await client.ask(asked, len(server.answer))
        _, *lines = bytes(server.received).split(b"\r\n")
        assert lines[1:] == [b"X-Stays: 1", b"Connection: keep-alive", b"", b""]


async def test_a_chunked_request_is_passed_on_in_the_same_chunks() -> None:
    body = b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nX-After: 1\r\n\r\n"

    async def script(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        await server.read(reader, len(body))
        writer.write(server.answer)

    async with (
        RawServer(script=script) as server,
        plain_tap(server.url) as tap,
        raw_client(tap.url) as client,
    ):
        await client.ask(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body, 40)
        assert server.received.endswith(b"\r\n\r\n" + body)


async def test_bodies_are_streamed_both_ways_before_they_are_whole() -> None:
    """The server answers each piece before the next is sent; a tap that waited for the whole would hang."""

    async def echo(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n")
        for _ in range(3):
            writer.write(await server.read(reader, 1000))

    async with RawServer(script=echo) as server, plain_tap(server.url) as tap, raw_client(tap.url) as client:
        client.writer.write(b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n")
        await client.read(len(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n"))
        for piece in (b"a" * 1000, b"b" * 1000, b"c" * 1000):
            assert await client.ask(piece, 1000) == piece


async def test_large_bodies_pass_while_little_is_held() -> None:
    size = 24 << 20

    async def swallow(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        left = size
        while left:
            left -= len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            writer.write(bytes(1 << 20))
            await writer.drain()

    async with (
        RawServer(script=swallow) as server,
        plain_tap(server.url) as tap,
        raw_client(tap.url) as client,
    ):
        client.writer.write(b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            client.writer.write(bytes(1 << 20))
            await client.writer.drain()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        assert await client.read(len(head)) == head
        assert await client.read(size) == bytes(size)


async def test_interim_answers_and_expect_are_passed_on() -> None:
    async def script(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"Expect: 100-continue" in await server.read_head(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await server.read(reader, 2)
        writer.write(server.answer)

    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with (
        RawServer(script=script) as server,
        plain_tap(server.url) as tap,
        raw_client(tap.url) as client,
    ):
        asked = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        assert await client.ask(asked, len(interim)) == interim
        assert await client.ask(b"ab", len(server.answer)) == server.answer


async def test_an_answer_that_ends_with_its_connection() -> None:
    async def script(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")

    async with (
        RawServer(script=script) as server,
        plain_tap(server.url) as tap,
        raw_client(tap.url) as client,
    ):
        client.writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert await client.rest() == b"HTTP/1.0 200 OK\r\n\r\nuntil the end"


async def test_a_broken_answer_is_broken_for_the_client_too() -> None:
    async def script(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    async with (
        RawServer(script=script) as server,
        plain_tap(server.url) as tap,
        raw_client(tap.url) as client,
    ):
        client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not (await client.rest()).endswith(b"\r\n\r\n" + b"h" * 100)


async def test_when_the_client_goes_the_held_poll_ends() -> None:
    gone = asyncio.Event()

    async def hold(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        assert await reader.read() == b""
        gone.set()

    async with RawServer(script=hold) as server, plain_tap(server.url) as tap:
        async with raw_client(tap.url) as client:
            client.writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(DEADLINE_S):
                await server.came.wait()
        async with asyncio.timeout(DEADLINE_S):
            await gone.wait()


async def test_a_connection_that_the_server_closes_when_idle_is_replaced() -> None:
    async def once(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        writer.write(server.answer)

    asked = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with RawServer(script=once) as server, plain_tap(server.url) as tap, raw_client(tap.url) as client:
        for _ in range(3):
            assert await client.ask(asked, len(server.answer)) == server.answer
            await server.left()
        assert server.connections == 3


async def test_an_answer_that_says_it_is_the_last_is_the_last() -> None:
    last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with RawServer(last) as server, plain_tap(server.url) as tap, raw_client(tap.url) as client:
        client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await client.rest() == last


async def test_no_connection_to_the_server_is_502() -> None:
    async with plain_tap("http://127.0.0.1:1") as tap, raw_client(tap.url) as client:
        client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


async def test_tls_on_both_sides_with_a_ca_of_ones_own(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    tls = server_tls(certificate, None)
    trusting = ssl.create_default_context(cafile=certificate)
    async with RawServer(tls=tls) as server:
        async with (
            plain_tap(server.url, ca_file=certificate, tls=tls) as tap,
            raw_client(tap.url, ssl=trusting) as client,
        ):
            assert await client.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 40) == server.answer
        async with plain_tap(server.url) as tap, raw_client(tap.url) as client:
            client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.rest()).startswith(b"HTTP/1.1 502 ")
        assert server.received.count(b"GET") == 1


@pytest.mark.parametrize("url", ["gws:8080", "ftp://gws", "http://", "http://gws/api", "http://u:p@gws"])
def test_a_server_that_is_no_server_is_refused_by_name(url: str) -> None:
    with pytest.raises(BadConfig, match=r"^tap: "):
        Upstream(url)


def make_certificate(directory: Path) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tap test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "tap.pem"
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem)
    return path
