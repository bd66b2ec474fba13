"""What Postgres can refuse or delay: producers get a clear error or a late success, never a silent loss."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from postmaster import Postmaster
from sqlalchemy.engine import URL, make_url
from stalling import stalling_proxy

from service.errors import DatabaseError, DatabaseUnavailable
from service.log import EventLog, NewEvent, Producer, Statement, append, open_log, watch
from service.log.verify import verify_log
from service.postgres import Database, open_pools
from service.postgres.embedded import EmbeddedPostgres
from service.postgres.schema import upgrade

SOON_S = 20
Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def event(payload: bytes = b"{}") -> NewEvent:
    return NewEvent(Producer.new().key, "call-1", "K", payload)


@asynccontextmanager
async def failing(owner: Owner, sqlstate: str, times: int = 1 << 30) -> AsyncIterator[None]:
    """Every INSERT into the log fails with `sqlstate`, so many times."""
    await owner.execute(
        f"""
        CREATE SEQUENCE failures; GRANT USAGE ON SEQUENCE failures TO PUBLIC;
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('failures') <= {times} THEN
                RAISE EXCEPTION 'No space left on device' USING ERRCODE = '{sqlstate}';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON event_log FOR EACH STATEMENT EXECUTE FUNCTION fail();
        """
    )
    yield
    await owner.execute("DROP TRIGGER fail ON event_log; DROP FUNCTION fail(); DROP SEQUENCE failures")


@pytest.mark.parametrize("sqlstate", ["53100", "40001", "40P01", "55P03", "57P03"])
async def test_a_fault_that_passes_is_a_late_success(log: EventLog, owner: Owner, sqlstate: str) -> None:
    async with failing(owner, sqlstate, times=3):
        positions = await asyncio.gather(*(log.append([event()]) for _ in range(20)))
    assert sorted(position for [position] in positions) == list(range(20))


async def test_a_disk_that_stays_full_is_a_clear_error_and_nothing_is_written(
    log: EventLog, database: Database, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append, "KEEP_TRYING_S", 0.2)
    events = [event() for _ in range(10)]
    async with failing(owner, "53100"):
        answers = await asyncio.gather(*(log.append([one]) for one in events), return_exceptions=True)
        assert {type(answer) for answer in answers} == {DatabaseUnavailable}
        assert "No space left on device" in str(answers[0])
        assert await log.next_position() == 0
    assert [await log.append([one]) for one in events] == [[at] for at in range(10)]
    assert (await verify_log(database)).intact


@pytest.mark.parametrize(
    ("lock", "told"),
    [
        ("SELECT FROM log_head FOR UPDATE", DatabaseUnavailable),
        ("LOCK TABLE event_log", DatabaseUnavailable),
        ("LOCK TABLE log_tile", DatabaseUnavailable),
    ],
)
async def test_a_rival_idle_in_its_transaction_delays_and_no_more(
    log: EventLog, owner: Owner, monkeypatch: pytest.MonkeyPatch, lock: str, told: type[DatabaseError]
) -> None:
    monkeypatch.setattr(append, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(append, "KEEP_TRYING_S", 0.3)
    await owner.execute(f"BEGIN; {lock}")
    events = [event() for _ in range(300)]  # enough for a tile
    with pytest.raises(told, match="lock timeout"):
        await log.append(events)
    monkeypatch.setattr(append, "KEEP_TRYING_S", SOON_S)
    late = asyncio.create_task(log.append(events))
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with asyncio.timeout(SOON_S):
        while not await owner.fetchval(waiting):
            pass
        await owner.execute("COMMIT")
        assert await late == list(range(300))


async def test_serialization_failures_lose_nothing(database_url: URL, owner: Owner) -> None:
    """Somebody has made SERIALIZABLE the database's default: the writers' transactions abort one another."""
    name = await owner.fetchval("SELECT current_database()")
    await owner.execute(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    async with (
        open_pools(database_url) as database,
        open_log(database, max_payload_bytes=100) as one,
        open_log(database, max_payload_bytes=100) as other,
    ):
        async with asyncio.timeout(SOON_S * 3):
            given = [
                await asyncio.gather(*(door.append([event()]) for door in (one, other) * 5))
                for _ in range(10)
            ]
        positions = sorted(position for answers in given for [position] in answers)
        assert positions == list(range(100))
        assert (await verify_log(database)).intact


async def test_a_statement_that_fails_rolls_back_its_batch_and_leaves_no_hole(
    log: EventLog, database: Database
) -> None:
    broken = Statement("INSERT INTO relay_cursor (name) SELECT $1 ->> 0", {"name": "a"})
    async with open_log(database, max_payload_bytes=100) as reader:
        for number in range(10):
            with pytest.raises(DatabaseError):
                await log.append([event()], also=[broken])
            assert await log.append([event()]) == [number]
        assert [one.position for one in await reader.read()] == list(range(10))


async def test_a_half_open_listener_costs_seconds_and_loses_nothing(
    log: EventLog, database_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "DEAD_S", 0.2)
    monkeypatch.setattr(watch, "POLL_S", 0.05)
    async with (
        stalling_proxy(database_url, tmp_path) as (proxied, proxy),
        open_pools(proxied) as database,
        open_log(database, max_payload_bytes=100) as reader,
    ):
        await log.append([event()])
        assert await reader.watch.beyond(-1, timeout_s=SOON_S)
        proxy.stall()
        await log.append([event()])
        assert await reader.watch.beyond(0, timeout_s=SOON_S)
        async with asyncio.timeout(SOON_S):
            assert await follow(reader, 2) == [0, 1]


async def follow(log: EventLog, count: int) -> list[int]:
    seen: list[int] = []
    async for page in log.follow(after=-1):
        seen += [one.position for one in page]
        if len(seen) >= count:
            break
    return seen


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A Postgres of its own, not started; where tmpfs can be mounted its disk is small."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("server"))
    yield server
    server.release()


async def test_a_restart_in_the_middle_passes_nothing_by(own_server: EmbeddedPostgres) -> None:
    url = make_url(await asyncio.to_thread(own_server.start))
    await upgrade(url)
    async with (
        open_pools(url) as database,
        open_log(database, max_payload_bytes=100) as log,
        open_pools(url) as elsewhere,
        open_log(elsewhere, max_payload_bytes=100) as reader,
    ):
        for _ in range(50):
            await log.append([event()])
        postmaster = Postmaster(own_server)
        postmaster.kill(signal.SIGINT)  # the supervisor starts it again
        count = 50
        async with asyncio.timeout(SOON_S * 3):
            while not postmaster.is_gone():
                await log.append([event()])
                count += 1
            for _ in range(50):
                await log.append([event()])
            count += 50
            assert await reader.watch.beyond(count - 2)
        assert await follow(reader, count) == list(range(count))
        assert (await verify_log(database)).intact


TMPFS_BYTES = 200 << 20
LEFT_FREE = 6 << 20


@pytest.fixture
def small_disk(own_server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    home = own_server.home
    home.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES},mode=755", "tmpfs", str(home)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small disk needs root and the right to mount tmpfs")
    yield own_server
    subprocess.run(["umount", "-l", str(home)], check=True)


async def test_a_full_disk_loses_nothing_acknowledged(
    small_disk: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append, "KEEP_TRYING_S", 0.5)
    url = make_url(await asyncio.to_thread(small_disk.start))
    await upgrade(url)
    filler = small_disk.home / "filler"
    free = os.statvfs(small_disk.home)
    with filler.open("wb") as file:
        file.write(bytes(free.f_bavail * free.f_frsize - LEFT_FREE))
    acknowledged: dict[int, bytes] = {}
    faults = 0
    async with open_pools(url) as database, open_log(database, max_payload_bytes=1 << 20) as log:
        while faults < 5:
            payload = os.urandom(100_000)
            try:
                [position] = await log.append([event(payload)])
                acknowledged[position] = payload
            except DatabaseError:
                faults += 1
        filler.unlink()
        monkeypatch.setattr(append, "KEEP_TRYING_S", SOON_S * 2)
        [last] = await log.append([event()])
        stored = {one.position: one.payload for one in await log.at(sorted(acknowledged))}
        assert stored == acknowledged
        assert len(acknowledged) > 5
        report = await verify_log(database)
        assert (report.differences, report.size) == ([], last + 1)
