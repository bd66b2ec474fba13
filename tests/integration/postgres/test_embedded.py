from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
from postmaster import Postmaster
from sqlalchemy.engine import make_url

from service.config import Settings
from service.errors import SchemaMismatch
from service.postgres import connect_arguments, open_database
from service.postgres.embedded import EmbeddedPostgres, is_locked, locked
from service.postgres.schema import check, upgrade


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory with a space in its name; at the end its server must be gone."""
    home = tmp_path_factory.mktemp("data dir")
    yield home
    server = EmbeddedPostgres(home)
    # The supervisor holds this lock until the server has stopped.
    with locked(server.home / "supervisor.lock"):
        assert not (server.cluster / "postmaster.pid").exists()
        shutil.rmtree(server.home)


async def ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(**connect_arguments(make_url(url)))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_data_survives_a_restart_and_the_server_stops_with_its_last_user(home: Path) -> None:
    server = EmbeddedPostgres(home)
    url = server.start()
    await ask(url, "CREATE TABLE kept AS SELECT 7 AS n")
    server.release()
    with locked(server.home / "supervisor.lock"):
        assert not (server.cluster / "postmaster.pid").exists()
    assert await ask(server.start(), "SELECT n FROM kept") == 7
    server.release()


async def test_many_commands_at_once_share_one_server(home: Path) -> None:
    servers = [EmbeddedPostgres(home) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        urls = list(pool.map(lambda server: server.start(), servers))
    starts = {await ask(url, "SELECT pg_postmaster_start_time()") for url in urls}
    assert len(starts) == 1
    for server in servers[1:]:
        server.release()
    assert await ask(urls[0], "SELECT 1") == 1
    servers[0].release()


def test_a_killed_user_leaves_no_server_behind(home: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from service.postgres.embedded import EmbeddedPostgres;"
        "EmbeddedPostgres(Path(sys.argv[1])).start(); print('up', flush=True); sys.stdin.read()"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", program, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"up\n"
        assert is_locked(EmbeddedPostgres(home).home / "supervisor.lock")
        user.kill()
    # The fixture waits for the server's end.


async def test_a_killed_server_comes_back_by_itself(home: Path) -> None:
    server = EmbeddedPostgres(home)
    url = server.start()
    await ask(url, "CREATE TABLE kept AS SELECT 7 AS n")
    Postmaster(server).end(signal.SIGKILL)
    assert await when_back(url, "SELECT n FROM kept") == 7
    server.release()


async def when_back(url: str, query: str) -> object:
    """Ask until the server answers; one that is down cannot tell when it is up."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await ask(url, query)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.05)


async def test_the_schema_is_checked_and_upgraded(home: Path) -> None:
    async with open_database(Settings(data_dir=home, database_url=None)) as database:
        with pytest.raises(SchemaMismatch, match="calltrail db upgrade"):
            await check(database)
        await upgrade(database.url)
        await upgrade(database.url)
        await check(database)
