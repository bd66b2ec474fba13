"""A log that was begun at schema revision 0001, before there was a tree."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL

from service.cli.traffic import Traffic
from service.errors import Tampered
from service.log import open_log
from service.log.verify import verify_log
from service.postgres import connect_arguments, open_pools
from service.postgres.schema import migrations, upgrade

EVENTS = 700  # two full tiles and a part of a third
INSERT = """
INSERT INTO event_log (position, recorded_at, event_id, codec, stream, kind, salt, commitment, payload)
VALUES ($1, now(), $2, 0, $3, $4, $5, $6, $7)
"""


@pytest.fixture
async def old_url(server_url: URL, database_url: URL) -> AsyncIterator[URL]:
    """A database at revision 0001 with events in it, as the program of then wrote them."""
    admin = await asyncpg.connect(**connect_arguments(database_url))
    url = server_url.set(database=f"old_{uuid4().hex}")
    await admin.execute(f'CREATE DATABASE "{url.database}"')
    config = Config()
    config.set_main_option("script_location", str(migrations()))
    text = url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    config.set_main_option("sqlalchemy.url", text.replace("%", "%%"))
    await asyncio.to_thread(command.upgrade, config, "0001")
    connection = await asyncpg.connect(**connect_arguments(url))
    for position, event in enumerate(Traffic(seed=5, sessions=3).events(EVENTS)):
        salt = os.urandom(16)
        commitment = hashlib.sha256(salt + event.payload).digest()
        await connection.execute(
            INSERT, position, event.event_id, event.stream, event.kind, salt, commitment, event.payload
        )
    await connection.execute(f"UPDATE log_head SET next_position = {EVENTS}, recorded_at = now()")
    await connection.close()
    yield url
    await admin.execute(f'DROP DATABASE "{url.database}" WITH (FORCE)')
    await admin.close()


async def test_the_tree_is_made_from_the_events(old_url: URL) -> None:
    await upgrade(old_url)
    async with open_pools(old_url) as database, open_log(database, max_payload_bytes=1 << 20) as log:
        assert (await verify_log(database)).intact
        await log.append(list(Traffic(seed=6, sessions=3).events(100)))
        report = await verify_log(database)
        assert (report.differences, report.size) == ([], EVENTS + 100)


async def test_a_log_with_a_hole_is_refused_with_the_remedy(old_url: URL) -> None:
    connection = await asyncpg.connect(**connect_arguments(old_url))
    await connection.execute(
        "SET session_replication_role = replica; DELETE FROM event_log WHERE position = 300"
    )
    await connection.close()
    with pytest.raises(Tampered, match="Restore the log from a backup"):
        await upgrade(old_url)
