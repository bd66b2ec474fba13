from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import httpx2
import pytest
from proxy import FaultProxy
from pydantic import SecretStr
from recording import agents, event_of, inject, kinds, recorded, recording, settings_for, until

from service.api import create_api
from service.app import check_gws
from service.cli.logs import LineFormatter
from service.config import Agent, Settings
from service.errors import BadConfig
from service.postgres import Database
from service.recorder import AgentRecorder, list_sessions
from service.recorder import recorder as recorder_module
from service.recorder.ownership import UNATTENDED
from service.simulator import Simulator


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, agent_count=4, timeout_ms=2_000) as running_simulator:
        yield running_simulator


def write(file: Path, users: Iterable[str], **more: str) -> None:
    tables = [
        f'[[agent]]\nuser = "{user}"\npassword = "{more.get(f"p{user}", f"secret-{user}")}"\n'
        for user in users
    ]
    draft = file.with_suffix(".draft")
    draft.write_text("\n".join(tables))
    draft.replace(file)


def said(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(LineFormatter().format(record) for record in caplog.records)


async def test_agents_are_added_removed_and_changed_without_a_restart(
    database: Database, simulator: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "agents.toml"
    write(file, ["15000", "15001"], p15001="an-old-password")
    settings = settings_for(database, simulator.url, tmp_path, agents_file=file)
    async with recording(settings, None) as application:
        log = application.log
        await until(log, "SessionOpened")
        [refused] = await until(log, "SessionRefused")
        assert event_of(refused).agent == "15001"

        write(file, ["15000", "15001", "15002"])
        opened = await until(log, "SessionOpened", count=3)
        assert {event_of(event).agent for event in opened} == {"15000", "15001", "15002"}
        assert "SessionResumed" not in await kinds(log)  # who has not changed is left alone

        file.write_text("[[agent]]\nuser = 3\n")
        async with asyncio.timeout(20):
            while "line 2, agent 1: user" not in said(caplog):  # noqa: ASYNC110 a log line is the fact
                await asyncio.sleep(0.05)
        assert set(application.recorder.agents) == {"15000", "15001", "15002"}

        write(file, ["15000", "15002"])
        [closed] = await until(log, "SessionClosed")
        assert event_of(closed).agent == "15001"
        bodies = inject(simulator, range(3))
        await until(log, "NotificationReceived", count=3)
        assert await recorded(log) == bodies
        async with asyncio.timeout(20):  # its row goes after its last event
            while {row["agent"] for row in await list_sessions(database)} != {"15000", "15002"}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert "secret-" not in said(caplog)


async def test_who_is_removed_while_gws_cannot_be_reached_has_a_gap_and_no_good_end(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    file = tmp_path / "agents.toml"
    write(file, ["15000", "15001"])
    async with FaultProxy(simulator.port, random.Random(1)) as proxy:
        settings = settings_for(database, proxy.url, tmp_path, agents_file=file)
        async with recording(settings, None) as application:
            await until(application.log, "CallsSnapshotTaken", count=2)
            proxy.down = True
            proxy.drop()
            inject(simulator, range(1), "15001")  # what GWS holds now will never be fetched
            write(file, ["15000"])
            [lost] = await until(application.log, "SessionLost")
            assert event_of(lost).agent == "15001"
            missed = simulator.truth.published[-1].at
            assert event_of(lost).last_alive.timestamp() <= missed <= event_of(lost).at.timestamp()
            assert "SessionClosed" not in await kinds(application.log)


async def test_a_session_that_could_not_be_ended_in_time_is_left_as_one_that_nobody_attends(
    database: Database, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agents.toml"
    write(file, ["15000", "15001"])
    settings = settings_for(database, simulator.url, tmp_path, agents_file=file)
    async with recording(settings, None) as application:
        await until(application.log, "CallsSnapshotTaken", count=2)
        monkeypatch.setattr(recorder_module, "CLOSING_S", 0.0)
        write(file, ["15000"])
        async with asyncio.timeout(20):
            while not (left := await list_sessions(database, UNATTENDED)):  # noqa: ASYNC110 the row is the fact
                await asyncio.sleep(0.02)
        assert [row["agent"] for row in left] == ["15001"]
        assert "15001" not in application.recorder.agents


async def test_the_drop_in_endpoint_knows_the_agents_of_the_moment(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    file = tmp_path / "agents.toml"
    write(file, ["15000"])
    settings = settings_for(database, simulator.url, tmp_path, agents_file=file)
    async with recording(settings, None) as application:
        transport = httpx2.ASGITransport(create_api(application.services))
        async with httpx2.AsyncClient(transport=transport, base_url="http://calltrail") as api:

            async def status(user: str) -> int:
                command = {"operationName": "SingleStepTransfer"}  # authenticated, and then found wanting
                answer = await api.post(
                    "/api/v2/me/calls/1", json=command, auth=(user, f"secret-{user}"), timeout=20
                )
                return answer.status_code

            await until(application.log, "SessionOpened")
            assert (await status("15000"), await status("15001")) == (400, 403)
            write(file, ["15001"])
            await until(application.log, "SessionClosed")
            assert (await status("15000"), await status("15001")) == (403, 400)


async def test_a_changed_entry_goes_on_with_the_session(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    file = tmp_path / "agents.toml"
    write(file, ["15000"])
    async with recording(
        settings_for(database, simulator.url, tmp_path, agents_file=file), None
    ) as application:
        await until(application.log, "CallsSnapshotTaken")
        file.write_text(file.read_text() + 'place = "P1"\n')
        os.utime(file)
        await until(application.log, "SessionResumed")
        assert not {"SessionLost", "SessionClosed"} & set(await kinds(application.log))


async def test_a_wrong_password_is_reported_once_and_not_hammered(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    wrong = [Agent(user="15000", password=SecretStr("not-his"))]
    async with recording(settings_for(database, simulator.url, tmp_path), wrong) as application:
        await until(application.log, "SessionRefused")
        recorder: AgentRecorder = application.recorder.agents["15000"]
        for _ in range(2):
            client = recorder._client
            assert client is not None
            assert client._session._not_before - asyncio.get_running_loop().time() > 25
            await recorder.loop.stop()
            recorder.loop.start()  # as if the pause were over
            await simulator.until(lambda client=client: refusals(recorder, client))
        [row] = await list_sessions(database, "refused")
        assert "password" in row["reason"]
        assert (await kinds(application.log)).count("SessionRefused") == 1
        assert not simulator.truth.sessions


def refusals(recorder: AgentRecorder, before: object) -> int:
    client = recorder._client
    return 0 if client is None or client is before else client._session._patience._refusals


async def test_who_cannot_be_reached_is_shown_and_reached_when_he_is_there(
    database: Database, tmp_path: Path
) -> None:
    simulator = Simulator(seed=1, agent_count=1)
    async with simulator:
        pass  # to have a port that nobody listens on
    async with recording(settings_for(database, simulator.url, tmp_path), agents(1)) as application:
        async with asyncio.timeout(20):
            while not application.recorder.agents or not application.recorder.agents["15000"].reason:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await application.recorder.ownership.beat()
        [row] = await list_sessions(database)
        assert row["status"] == "starting"
        assert "no connection" in row["reason"]
        async with simulator:
            await until(application.log, "SessionOpened")
            await application.recorder.stop()


async def test_sessions_are_shown_by_http_whoever_records_them(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path), agents(2)) as application:
        await until(application.log, "CallsSnapshotTaken", count=2)
        inject(simulator, range(3))
        await until(application.log, "NotificationReceived", count=3)
        transport = httpx2.ASGITransport(create_api(application.services))
        async with httpx2.AsyncClient(transport=transport, base_url="http://calltrail") as api:
            told = (await api.get("/v1/sessions")).json()["sessions"]
            assert [(one["agent"], one["status"], one["delivered"]) for one in told] == [
                ("15000", "open", 3),
                ("15001", "open", 0),
            ]
            assert all(one["alive_at"] for one in told)
            assert not {"secret", "owner"} & told[0].keys()
            none = (await api.get("/v1/sessions", params={"status": "lost"})).json()
            assert none == {"sessions": []}
            await application.recorder.stop(keep_sessions=True)
            told = (await api.get("/v1/sessions")).json()["sessions"]
            assert {one["status"] for one in told} == {"unattended"}


@pytest.mark.parametrize("url", ["http://gws.example", "http://192.0.2.1:8080", "http://localhost.example"])
def test_passwords_are_not_sent_in_the_clear_to_another_machine(url: str) -> None:
    with pytest.raises(BadConfig, match="--insecure"):
        check_gws(Settings(gws_url=url))
    check_gws(Settings(gws_url=url, insecure=True))
    check_gws(Settings(gws_url=url.replace("http:", "https:")))


@pytest.mark.parametrize("url", ["gws.example", "ftp://gws.example", "https://", "https://a:b@gws.example"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadConfig, match="gws_url"):
        check_gws(Settings(gws_url=url, insecure=True))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]:1", "http://localhost"])
def test_loopback_is_no_network(url: str) -> None:
    check_gws(Settings(gws_url=url))
