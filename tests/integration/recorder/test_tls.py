"""A server whose certificate turns bad while its sessions are open."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from certificates import certificate
from recording import agents, event_of, inject, recorded, recording, settings_for, until

from service.cometd import shared_http
from service.config import Agent
from service.postgres import Database
from service.recorder import Access, list_sessions
from service.simulator import Simulator


class Terminator:
    """Speaks TLS to the clients and plain HTTP to `port`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def showing(self, pem: Path, port: int = 0) -> AsyncIterator[int]:
        """Listen with this certificate; cut every connection at the end. Gives the port."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        both = {writer, up_writer}
        self._writers |= both
        await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
        self._writers -= both

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        writer.transport.abort()


async def test_a_certificate_that_turns_bad_is_told_and_tried_slowly_and_touches_no_other(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    good, bad = certificate(tmp_path / "good"), certificate(tmp_path / "bad")
    trusting = ssl.create_default_context(cafile=str(good))
    monkeypatch.setattr("service.app.shared_http", lambda: shared_http(trusting))
    async with Simulator(seed=1, agent_count=2, timeout_ms=300) as simulator:
        terminator = Terminator(simulator.port)
        access = Access.of

        async with terminator.showing(good) as port:

            def over_tls(agent: Agent, http: aiohttp.ClientSession, url: str, **more: Any) -> Access:
                first = agent.user == "15000"
                return access(agent, http, f"https://127.0.0.1:{port}" if first else url, **more)

            monkeypatch.setattr(Access, "of", over_tls)
            opening = recording(settings_for(database, simulator.url, tmp_path), agents(2))
            application = await opening.__aenter__()
            log = application.log
            await until(log, "CallsSnapshotTaken", count=2)
        try:
            recorder = application.recorder.agents["15000"]
            async with terminator.showing(bad, port):
                async with asyncio.timeout(30):
                    while "certificate" not in recorder.reason:  # noqa: ASYNC110 a log line is the fact
                        await asyncio.sleep(0.02)
                await application.recorder.ownership.beat()
                [row] = await list_sessions(database, "retrying")
                assert (row["agent"], "certificate" in row["reason"]) == ("15000", True)
                simulator.kill_session("15000")
                inject(simulator, range(1), "15000")  # to nobody
                bodies = inject(simulator, range(3), "15001")
                await until(log, "NotificationReceived", count=3)
                assert await recorded(log, "15001") == bodies
                told = [record for record in caplog.records if "certificate" in str(record.__dict__)]
                assert {record.__dict__.get("agent") for record in told} == {"15000"}
            async with terminator.showing(good, port):
                [lost] = await until(log, "SessionLost")
                *_, opened = await until(log, "SessionOpened", count=3)
                assert event_of(lost).agent == event_of(opened).agent == "15000"
                [missed] = [one for one in simulator.truth.published if one.agent == "15000"]
                assert event_of(lost).last_alive.timestamp() <= missed.at <= event_of(opened).at.timestamp()
                assert await recorded(log, "15000") == []
                await application.recorder.stop()
        finally:
            await opening.__aexit__(None, None, None)
