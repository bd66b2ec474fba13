"""Troubles of one session on real sockets: what is told of them, and that they cost no event and no other."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from proxy import FaultProxy
from recording import agents, event_of, inject, kinds, recorded, recording, settings_for, until

from service.cometd import Timing
from service.errors import AnswerLost, GwsError, NotSent
from service.gws import Answer, GwsClient
from service.postgres import Database
from service.recorder import AgentRecorder, Status, appending, list_sessions, snapshot
from service.simulator import Simulator, bayeux

ONE = agents(1)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(
        seed=1, agent_count=3, timeout_ms=500, max_interval_ms=60_000, csrf=True
    ) as running_simulator:
        yield running_simulator


@pytest.mark.parametrize("ack", [True, False])
async def test_a_new_csrf_token_is_taken_up_and_the_session_goes_on(
    database: Database, simulator: Simulator, tmp_path: Path, *, ack: bool
) -> None:
    """GWS's HTTP session is over: 403 with statusCode 20, and another token from then on."""
    simulator.ack = ack
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        gws = application.recorder.accesses["15000"].gws
        before = dict(gws.csrf)
        simulator.expire_http_session("15000")
        bodies = inject(simulator, range(2))
        await until(application.log, "NotificationReceived", count=2)
        await simulator.until(lambda: dict(gws.csrf) != before)
        bodies += inject(simulator, range(2, 4))
        await until(application.log, "NotificationReceived", count=4)
        assert await recorded(application.log) == bodies
        assert not {"SessionLost", "GapSuspected", "SessionRefused"} & set(await kinds(application.log))
        assert len(simulator.truth.sessions) == 1


async def test_a_message_on_a_channel_never_subscribed_is_recorded_as_it_came(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    odd = b'{"channel":"/never/subscribed","data":{"number": 1.0}}'
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        simulator.inject("15000", odd)
        bodies = inject(simulator, range(1))
        first, _ = await until(application.log, "NotificationReceived", count=2)
        assert event_of(first).channel == "/never/subscribed"
        assert await recorded(application.log) == [odd, *bodies]


class Names:
    """Resolves `host` to loopback while it is `known`, and any other name as ever."""

    host = "gws.example"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known = True
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(self, host: Any, *more: Any, **options: Any) -> Any:
        if host != self.host:
            return self._resolve(host, *more, **options)
        if not self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._resolve("127.0.0.1", *more, **options)


async def test_a_host_that_is_not_found_any_more_is_told_and_tried_slowly_and_costs_nothing(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch)
    async with FaultProxy(simulator.port, random.Random(1)) as proxy:
        url = proxy.url.replace("127.0.0.1", names.host)
        async with recording(settings_for(database, url, tmp_path, insecure=True), ONE) as application:
            assert application.recorder.pacing.timing == Timing()  # how slowly: see the client's own tests
            await until(application.log, "CallsSnapshotTaken")
            bodies = inject(simulator, range(2))
            await until(application.log, "NotificationReceived", count=2)
            names.known = False
            http = application.recorder.accesses["15000"].http
            assert http.connector is not None
            http.connector.clear_dns_cache()  # type: ignore[attr-defined]  # a TCPConnector's
            proxy.drop()
            recorder = application.recorder.agents["15000"]
            await told(recorder, Status.RETRYING, names.host)
            await application.recorder.ownership.beat()
            [row] = await list_sessions(database, "retrying")
            assert names.host in row["reason"]
            bodies += inject(simulator, range(2, 5))
            names.known = True
            await until(application.log, "NotificationReceived", count=5)
            assert await recorded(application.log) == bodies
            assert not {"SessionLost", "GapSuspected"} & set(await kinds(application.log))


async def told(recorder: AgentRecorder, status: Status, reason: str) -> None:
    async with asyncio.timeout(30):
        while recorder.status is not status or reason not in recorder.reason:  # noqa: ASYNC110 told by a log line
            await asyncio.sleep(0.02)


async def test_what_a_server_says_of_one_agent_cannot_stop_the_others(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres takes no NUL in a text, and the reasons of many agents are written together."""
    handshake = bayeux.Bayeux._handshake

    def refuse(self: bayeux.Bayeux, exchange: bayeux.Exchange, message: dict[str, Any]) -> dict[str, Any]:
        if exchange.agent != "15000":
            return handshake(self, exchange, message)
        refusal = {"channel": "/meta/handshake", "successful": False, "error": "403::not \x00 you"}
        return {**refusal, "id": message["id"]}

    monkeypatch.setattr(bayeux.Bayeux, "_handshake", refuse)
    async with recording(settings_for(database, simulator.url, tmp_path), agents(2)) as application:
        await until(application.log, "SessionRefused")
        await until(application.log, "CallsSnapshotTaken")
        await application.recorder.ownership.beat()
        [row] = await list_sessions(database, "refused")
        assert row["agent"] == "15000"
        assert "403 not � you" in row["reason"]
        bodies = inject(simulator, range(2), "15001")
        await until(application.log, "NotificationReceived", count=2)
        assert await recorded(application.log, "15001") == bodies


async def test_a_snapshot_that_does_not_come_costs_no_session(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: GwsClient) -> Answer:
        return await asyncio.get_running_loop().create_future()

    simulator.max_interval_ms = 2_000
    monkeypatch.setattr(appending, "MAX_INTERVAL_S", 2.0)
    monkeypatch.setattr(GwsClient, "calls", never)
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "SessionOpened")
        bodies = inject(simulator, range(2))
        await until(application.log, "NotificationReceived", count=2)
        assert await recorded(application.log) == bodies
        assert await kinds(application.log) == ["SessionOpened", *["NotificationReceived"] * 2]


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Answer | GwsError) -> list[Answer | None]:
    """GWS's answers to the first questions for an agent's calls; what was answered, None for nothing."""
    monkeypatch.setattr(snapshot, "FIRST_PAUSE_S", 0.01)
    ask, left, given = GwsClient.calls, list(answers), list[Answer | None]()

    async def calls(self: GwsClient) -> Answer:
        answer = left.pop(0) if left else await ask(self)
        given.append(None if isinstance(answer, GwsError) else answer)
        if isinstance(answer, GwsError):
            raise answer
        return answer

    monkeypatch.setattr(GwsClient, "calls", calls)
    return given


UNAVAILABLE = Answer.of(503, "text/html", b"<h1>no</h1>")


async def test_a_snapshot_is_asked_for_until_gws_has_said(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = answering(monkeypatch, NotSent("no"), UNAVAILABLE, AnswerLost("no"), UNAVAILABLE)
    call = simulator.place_call("5550100", "15000")
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        snapshots = await until(application.log, "CallsSnapshotTaken", count=2)
        bodies = inject(simulator, range(2))
        await until(application.log, "NotificationReceived", count=2)
        assert await recorded(application.log) == bodies
        assert [event_of(one).http_status for one in snapshots] == [503, 200]
        assert call.id.encode() in snapshots[1].payload
        assert (await kinds(application.log)).count("CallsSnapshotTaken") == 2
    assert len(given) == 5
    assert len(simulator.truth.sessions) == 1


async def test_a_refused_snapshot_is_recorded_and_not_asked_again(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Answer.of(403, "application/json", b'{"statusCode":5,"statusMessage":"no permission"}')
    given = answering(monkeypatch, refusal)
    async with recording(settings_for(database, simulator.url, tmp_path), ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        for count in range(1, 4):
            inject(simulator, range(count, count + 1))
            await until(application.log, "NotificationReceived", count=count)
        [only] = await until(application.log, "CallsSnapshotTaken")
    assert given == [refusal]
    assert event_of(only).http_status == 403
