from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from recording import (
    agents,
    event_of,
    inject,
    kinds,
    numbered,
    recorded,
    recording,
    settings_for,
    until,
)

from service.cli.logs import LineFormatter
from service.errors import BadConfig
from service.postgres import Database
from service.recorder import Vault
from service.simulator import Simulator

ONE = agents(1)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, agent_count=3, timeout_ms=2_000, csrf=True) as running_simulator:
        yield running_simulator


@pytest.mark.parametrize("ack", [True, False])
@pytest.mark.parametrize("crash", [True, False])
async def test_a_restart_goes_on_with_the_session_where_it_was_left(
    database: Database, simulator: Simulator, tmp_path: Path, *, ack: bool, crash: bool
) -> None:
    simulator.ack = ack
    settings = settings_for(database, simulator.url, tmp_path)
    async with recording(settings, ONE, crash=crash) as first:
        await until(first.log, "SessionOpened")
        bodies = inject(simulator, range(5))
        await until(first.log, "NotificationReceived", count=5)
    bodies += inject(simulator, range(5, 10))
    async with recording(settings, ONE) as second:
        await until(second.log, "SessionResumed")
        bodies += inject(simulator, range(10, 12))
        await until(second.log, "NotificationReceived", count=12 if ack or not crash else 2)
        seen = await kinds(second.log)
        assert "SessionLost" not in seen
        assert seen.count("SessionOpened") == 1
        assert len(simulator.truth.sessions) == 1
        if ack or not crash:
            assert await recorded(second.log) == bodies
            assert "GapSuspected" not in seen
        else:  # the poll that was under way may have been answered to nobody
            await until(second.log, "GapSuspected")


async def test_a_restart_that_comes_too_late_records_the_gap(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    settings = settings_for(database, simulator.url, tmp_path)
    async with recording(settings, ONE, crash=True) as first:
        await until(first.log, "SessionOpened")
        inject(simulator, range(1))
        [one] = await until(first.log, "NotificationReceived")
    simulator.kill_session("15000")
    inject(simulator, range(1, 2))
    async with recording(settings, ONE) as second:
        [lost] = [event_of(event) for event in await until(second.log, "SessionLost")]
        _, opened = [event_of(event) for event in await until(second.log, "SessionOpened", count=2)]
        await until(second.log, "CallsSnapshotTaken", count=2)
        missed = simulator.truth.published[-1]
        assert lost.session == event_of(one).session
        assert opened.session != lost.session
        assert lost.last_alive.timestamp() <= missed.at <= opened.at.timestamp()
        assert await recorded(second.log) == [numbered(0)]


async def test_without_the_key_or_at_another_server_a_session_is_lost_and_said_to_be(
    database: Database, simulator: Simulator, tmp_path: Path
) -> None:
    async with recording(settings_for(database, simulator.url, tmp_path / "a"), ONE) as first:
        await until(first.log, "SessionOpened")
    async with recording(settings_for(database, simulator.url, tmp_path / "b"), ONE) as second:
        await until(second.log, "SessionLost")
        await until(second.log, "SessionOpened", count=2)
    async with Simulator(seed=2) as other:
        async with recording(settings_for(database, other.url, tmp_path / "b"), ONE) as third:
            await until(third.log, "SessionLost", count=2)
            await until(third.log, "SessionOpened", count=3)
        assert not any(session.ended_because for session in other.truth.sessions.values())


async def test_no_secret_is_in_the_database(
    database: Database, simulator: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    settings = settings_for(database, simulator.url, tmp_path)
    async with recording(settings, ONE) as application:
        await until(application.log, "CallsSnapshotTaken")
        simulator.kill_session("15000")
        await until(application.log, "CallsSnapshotTaken", count=2)
        recorder = application.recorder.agents["15000"]
        shown = [repr(recorder), repr(recorder._client), repr(recorder._access), repr(recorder._kept)]
        shown += [repr(application.settings), repr(ONE), repr(recorder._keeper._sealed)]
        shown += [repr(recorder._access.gws)]
        secrets = {session.client_id for session in simulator.truth.sessions.values()}
        secrets |= {"secret-15000", simulator.agents["15000"].authorization.removeprefix("Basic ")}
        secrets |= set(simulator.logins._sessions)
        secrets |= {session.csrf_token for session in simulator.logins._sessions.values()}
        secrets |= {session.browser for session in simulator.bayeux.sessions.values()}
        stored = await application.log.read()
        rows = await database.pool.fetch("SELECT * FROM recorder_session")
        text = "\n".join(
            [
                *shown,
                *map(LineFormatter().format, caplog.records),
                *map(repr, stored),
                *map(repr, map(dict, rows)),
            ]
        )
        assert rows[0]["secret"]
        for secret in secrets:
            assert secret not in text
            assert secret.encode() not in rows[0]["secret"]


def test_the_key_is_drawn_once_and_is_ours_alone(tmp_path: Path) -> None:
    sealed = Vault(tmp_path).seal("15000", b"secret")
    assert Vault(tmp_path).unseal("15000", sealed) == b"secret"
    assert Vault(tmp_path).unseal("15001", sealed) is None
    assert Vault(tmp_path / "other").unseal("15000", sealed) is None
    key = tmp_path / "sessions.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    with pytest.raises(BadConfig, match="chmod 600"):
        Vault(tmp_path)
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(BadConfig, match="not a key"):
        Vault(tmp_path)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["sessions.key"]
