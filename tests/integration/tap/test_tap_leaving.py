"""A tap that is stopped cuts nothing off, and a second one takes over its port without a failed request."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from raw_peers import DEADLINE_S, Plain, RawServer, raw_client

from service.errors import BadConfig
from service.simulator import Simulator
from service.tap.listening import leave_to_successor, listen, parse_address
from service.tap.server import Server

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


async def serve(url: str, port: int = 0) -> Server:
    server = Server(Plain(url), "127.0.0.1", port)
    await server.start()
    return server


def port_of(server: Server) -> int:
    return int(server.url.rpartition(":")[2])


async def test_a_held_request_comes_to_its_end_and_says_that_it_is_the_last() -> None:
    answer = asyncio.Event()

    async def hold(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        await answer.wait()
        writer.write(server.answer)

    async with RawServer(script=hold) as server:
        tap = await serve(server.url)
        async with raw_client(tap.url) as held, raw_client(tap.url) as idle:
            held.writer.write(GET)
            await server.came.wait()
            stopping = asyncio.create_task(tap.stop(DEADLINE_S))
            while not tap._site.draining:  # noqa: ASYNC110 nothing signals it
                await asyncio.sleep(0)
            answer.set()
            assert await held.rest() == LAST
            idle.writer.write(GET)  # an idle connection is served once more
            assert await idle.rest() == LAST
        async with asyncio.timeout(DEADLINE_S):
            await stopping


async def test_what_does_not_end_is_cut_off_at_the_deadline() -> None:
    async def hold(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read_head(reader)
        await reader.read()

    async with RawServer(script=hold) as server:
        tap = await serve(server.url)
        async with raw_client(tap.url) as held:
            held.writer.write(GET)
            await server.came.wait()
            await tap.stop(0.05)
            assert await held.rest() in {b"", b"reset"}


async def test_a_second_process_takes_over_without_a_failed_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.tap.server.HANDOVER_S", 0.3)
    async with RawServer() as server:
        first = await serve(server.url)
        port = port_of(first)
        done, stopping = 0, asyncio.Event()

        async def fresh() -> None:
            """A new connection for each request."""
            nonlocal done
            while not stopping.is_set():
                async with raw_client(f"http://127.0.0.1:{port}") as client:
                    client.writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                    assert (await client.rest()).startswith(b"HTTP/1.1 200 OK")
                    done += 1

        async def kept() -> None:
            """One connection for as long as it may be kept."""
            nonlocal done
            while not stopping.is_set():
                async with raw_client(f"http://127.0.0.1:{port}") as client:
                    while not stopping.is_set():
                        client.writer.write(GET)
                        answer = await client.reader.readuntil(b"ok")
                        done += 1
                        if b"Connection: close" in answer:
                            break

        clients = [asyncio.create_task(one()) for one in (fresh, fresh, fresh, kept, kept)]
        async with asyncio.timeout(3 * DEADLINE_S):
            for takeover in range(1, 4):
                second = await serve(server.url, port)
                await first.stop(DEADLINE_S)
                first = second
                while done < 20 * takeover:  # noqa: ASYNC110 nothing signals it
                    await asyncio.sleep(0)
            stopping.set()
            await asyncio.gather(*clients)
        await first.stop(1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="a service of Linux's kernel")
def test_after_leaving_all_new_connections_are_the_successors() -> None:
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with first, listen("127.0.0.1", port) as second:
        leave_to_successor(first)
        with ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            for listener, expected in ((first, 0), (second, 50)):
                listener.setblocking(False)
                taken = 0
                with suppress(BlockingIOError):
                    while True:
                        listener.accept()[0].close()
                        taken += 1
                assert taken == expected
        first.close()
        socket.create_connection(("127.0.0.1", port)).close()  # and it is chosen still


@pytest.mark.parametrize("text", ["8383", "host", ":1", "host:", "host:x", "host:70000"])
def test_an_address_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadConfig, match=r"^tap_listen: "):
        parse_address(text)


def test_addresses() -> None:
    assert parse_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_address("[::1]:8383") == ("::1", 8383)


async def test_serve_takes_a_socket_that_is_handed_over_and_ends_well(tmp_path: Path) -> None:
    """As systemd does it: the listening socket is file descriptor 3, and outlives the process."""
    program = (
        "import os,sys,socket\n"
        "s=socket.create_server(('127.0.0.1',0)); os.dup2(s.fileno(),3); os.set_inheritable(3,True)\n"
        "os.environ|={'LISTEN_FDS':'1','LISTEN_PID':str(os.getpid())}\n"
        "main='from service.cli import main; main()'\n"
        "os.execv(sys.executable,[sys.executable,'-c',main,*sys.argv[1:]])\n"
    )
    async with Simulator(seed=1) as simulator:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, "serve", "--tap", simulator.url, "--port", "0"),
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "CALLTRAIL_DATA_DIR": str(tmp_path),
                "CALLTRAIL_DRAIN_S": "2",
                "COLUMNS": "200",
            },
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while not (line := (await process.stdout.readline()).decode()).startswith("tap "):
                assert line
            async with raw_client(line.split()[1]) as client:
                client.writer.write(b"GET /api/v2/diagnostics/version HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await client.reader.readuntil(b"}")).endswith(b'"version":"8.5.202.96"}')
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
