"""Fixtures: a real Postgres for the session, a database of its own for each test."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from databases import execute
from hypothesis import settings
from sqlalchemy.engine import URL, make_url

from service.cli.logs import LineFormatter
from service.log import EventLog, open_log
from service.postgres import Database, connect_arguments, open_pools, parse_url
from service.postgres.embedded import EmbeddedPostgres, locked
from service.postgres.schema import upgrade

SAMPLES = Path(__file__).parent / "samples"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long batteries in full")
    parser.addoption("--screenshots", metavar="DIR", help="where the tests put pictures of the pages")
    parser.addoption(
        "--site", metavar="URL", help="a running service to take pictures of, not the tests' own"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Draw the same examples each time, so that a change breaks a test or does not; --long draws others."""
    settings.register_profile("same", deadline=None, derandomize=True)
    settings.register_profile("other", deadline=None)
    settings.load_profile("other" if config.getoption("--long") else "same")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the long batteries, or let them take their time."""
    long = config.getoption("--long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(
                pytest.mark.timeout(0) if long else pytest.mark.skip("a long battery; run with --long")
            )


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests' keys and data out of the user's own."""
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data-home"))


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what a command run within a test has set: its handler writes to that test's captured stderr."""
    root, ours = logging.getLogger(), logging.getLogger("service")
    levels = root.level, ours.level
    yield
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, LineFormatter):
            root.removeHandler(handler)
            handler.close()


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """A Postgres server: the one of DATABASE_URL, or an embedded one that trades durability for speed."""
    if given := os.environ.get("DATABASE_URL"):
        yield parse_url(given)
        return
    home = tmp_path_factory.mktemp("calltrail")
    server = EmbeddedPostgres(home, options={"fsync": "off", "synchronous_commit": "off"})
    url = make_url(server.start())
    yield url
    server.release()
    remove(server)


def remove(server: EmbeddedPostgres) -> None:
    """Wait for the server's end and remove its files, which are elsewhere where root runs the tests."""
    with locked(server.home / "supervisor.lock"):
        assert not (server.cluster / "postmaster.pid").exists()
        shutil.rmtree(server.home)


@pytest.fixture(scope="session")
def template(server_url: URL) -> Iterator[str]:
    """A migrated database to copy from."""
    name = f"template_{uuid.uuid4().hex}"

    async def make() -> None:
        await execute(server_url, f'CREATE DATABASE "{name}"')
        await upgrade(server_url.set(database=name))

    asyncio.run(make())
    yield name
    asyncio.run(execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
async def database_url(server_url: URL, template: str) -> AsyncIterator[URL]:
    name = f"test_{uuid.uuid4().hex}"
    await execute(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield server_url.set(database=name)
    await execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def database(database_url: URL) -> AsyncIterator[Database]:
    async with open_pools(database_url) as opened:
        yield opened


@pytest.fixture
async def owner(database_url: URL) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection of the superuser who owns the tables, and may do what the service may not."""
    connection = await asyncpg.connect(**connect_arguments(database_url))
    yield connection
    await connection.close()


@pytest.fixture
async def log(database: Database) -> AsyncIterator[EventLog]:
    async with open_log(database, max_payload_bytes=1 << 20) as opened:
        yield opened


@pytest.fixture
def sample() -> object:
    """Reads a sample of the GWS reference by its name, as bytes."""
    return lambda name: (SAMPLES / f"{name}.json").read_bytes()
