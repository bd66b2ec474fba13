"""What the service may do in its database, and what Postgres refuses it whatever the triggers say."""

from __future__ import annotations

import logging
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import URL

from service.app import open_application
from service.config import Settings
from service.log import EventLog, NewEvent, Producer, open_log
from service.postgres import Database, open_pools
from service.postgres.role import ROLE
from service.postgres.schema import upgrade

TABLES = ("event_log", "event_log_000000", "log_tile", "log_checkpoint", "log_codec")


def event() -> NewEvent:
    return NewEvent(Producer.new().key, "call-1", "K", b"{}")


async def test_every_connection_of_the_service_has_its_role(database: Database) -> None:
    async with database.engine.connect() as connection:
        names = [(await connection.exec_driver_sql("SELECT current_user::text")).scalar()]
        await connection.rollback()
        names.append((await connection.exec_driver_sql("SELECT current_user::text")).scalar())
    # A connection that comes back to the pool keeps it.
    names += [await database.pool.fetchval("SELECT current_user::text") for _ in range(2)]
    lone = await database.connect()
    names.append(await lone.fetchval("SELECT current_user::text"))
    await lone.close()
    assert set(names) == {ROLE}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET {column} = {column}",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DROP TABLE {}",
        "ALTER TABLE {} ADD COLUMN more text",
        "ALTER TABLE {} DISABLE TRIGGER ALL",
        "CREATE RULE quiet AS ON INSERT TO {} DO INSTEAD NOTHING",
    ],
)
async def test_postgres_refuses_the_service_what_would_change_the_log(
    log: EventLog, database: Database, owner: asyncpg.Connection[asyncpg.Record], table: str, statement: str
) -> None:
    await log.append([event()])
    await owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    column = {"log_tile": "root", "log_checkpoint": "note", "log_codec": "dictionary"}.get(table, "payload")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.pool.execute(statement.format(table, column=column))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM log_head",
        "INSERT INTO log_head DEFAULT VALUES",
        "UPDATE alembic_version SET version_num = '0001'",
        "INSERT INTO event_log_000000 SELECT * FROM event_log",
        "ALTER FUNCTION event_log_redact(bigint, bytea) RENAME TO other",
        "CREATE TABLE public.mine ()",
        "SET session_replication_role = replica",
        "DROP SCHEMA public CASCADE",
    ],
)
async def test_neither_may_it_go_around(database: Database, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.pool.execute(statement)


async def test_a_new_partition_is_as_guarded_as_the_first(
    log: EventLog, database: Database, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await owner.execute(
        "CREATE OR REPLACE FUNCTION event_log_partition_size() RETURNS bigint "
        "LANGUAGE sql IMMUTABLE AS 'SELECT 10::bigint'; DROP TABLE event_log_000000"
    )
    await log.append([event() for _ in range(25)])
    for statement in ("DELETE FROM event_log_000002", "UPDATE event_log_000002 SET payload = ''"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.pool.execute(statement)


async def test_a_user_who_may_not_create_roles_is_told_and_goes_on(
    server_url: URL, owner: asyncpg.Connection[asyncpg.Record], caplog: pytest.LogCaptureFixture
) -> None:
    """As with a Postgres of one's own: a plain user with a database, on a server without the role."""
    name = f"plain_{Producer.new().key.hex}"
    await owner.execute(f"CREATE ROLE {name} LOGIN")
    await owner.execute(f"CREATE DATABASE {name} OWNER {name}")
    url = server_url.set(username=name, database=name)
    try:
        with caplog.at_level(logging.WARNING):
            await upgrade(url)
        assert "guarded by triggers alone" in caplog.text
        async with open_pools(url) as database, open_log(database, max_payload_bytes=100) as log:
            assert await log.append([event()]) == [0]
            assert await database.pool.fetchval("SELECT current_user::text") == name
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await database.pool.execute("DELETE FROM event_log")
        await owner.execute(f"GRANT {ROLE} TO {name}")  # an administrator has read the warning
        await upgrade(url)
        async with open_pools(url) as database, open_log(database, max_payload_bytes=100) as log:
            assert await log.append([event()]) == [1]
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await database.pool.execute("DELETE FROM event_log")
    finally:
        await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await owner.execute(f"DROP ROLE {name}")


async def test_the_first_start_on_an_empty_database_takes_the_role(
    server_url: URL, owner: asyncpg.Connection[asyncpg.Record], tmp_path: Path
) -> None:
    name = f"empty_{Producer.new().key.hex}"
    await owner.execute(f"CREATE DATABASE {name}")
    url = server_url.set(database=name).render_as_string(hide_password=False)
    try:
        async with open_application(Settings(database_url=url, data_dir=tmp_path), agents=[]) as application:
            assert await application.database.pool.fetchval("SELECT current_user::text") == ROLE
            assert await application.log.append([event()]) == [0]
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await application.database.pool.execute("DELETE FROM event_log")
    finally:
        await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
