"""Postgres: the embedded server, the connection pools, and what a driver's error means.

Two pools on one database: `Database.pool` (asyncpg, for the log's hot path) and `Database.engine`
(SQLAlchemy, for tables and queries). Both take the service's role (`service.postgres.role`). With
`DATABASE_URL` that server is used; without it an embedded one is started and shared by every command on the
same data directory (`service.postgres.embedded`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from service.config import Settings
from service.errors import BadConfig, CalltrailError, DatabaseError, DatabaseUnavailable, SchemaMismatch
from service.postgres.embedded import EmbeddedPostgres
from service.postgres.role import take_role

CLOSING_S = 2.0  # what is still asked of the database when it is closed has so long to end


@dataclass(frozen=True)
class Database:
    """One database and the two pools on it."""

    url: URL
    pool: asyncpg.Pool[asyncpg.Record]
    engine: AsyncEngine

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside the pools (for LISTEN and advisory locks); the caller closes it."""
        connection = await self.connect_as_owner()
        try:
            with database_errors():
                await take_role(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def connect_as_owner(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection that has not taken the service's role, for maintenance; the caller closes it."""
        with database_errors():
            return await asyncpg.connect(**connect_arguments(self.url))


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the configured database, starting the embedded server where none is configured."""
    if settings.database_url:
        async with open_pools(parse_url(settings.database_url)) as database:
            yield database
        return
    server = EmbeddedPostgres(settings.data_dir, options=settings.postgres_options)
    url = await asyncio.to_thread(server.start)
    try:
        async with open_pools(make_url(url)) as database:
            yield database
    finally:
        server.release()


async def nothing_to_reset(_: object) -> None:
    """Spare the round trip: LISTEN, SET and advisory locks are for connections outside the pool."""


@asynccontextmanager
async def open_pools(url: URL, *, max_size: int = 8) -> AsyncIterator[Database]:
    """Open both pools on `url`; connections are made when they are needed."""
    with database_errors():
        pool = await asyncpg.create_pool(
            **connect_arguments(url),
            min_size=1,
            max_size=max_size,
            command_timeout=60,
            init=take_role,
            reset=nothing_to_reset,
        )
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), pool_size=max_size)
    event.listen(engine.sync_engine, "connect", take_role_sync)
    try:
        yield Database(url, pool, engine)
    finally:
        await engine.dispose()
        try:
            await asyncio.wait_for(pool.close(), CLOSING_S)
        except TimeoutError:
            pool.terminate()


def take_role_sync(connection: Any, _record: object) -> None:
    """`take_role` for SQLAlchemy's pool, outside any transaction that could be rolled back."""
    connection.run_async(take_role)


def parse_url(text: str) -> URL:
    """Parse a `DATABASE_URL` of the forms postgres://, postgresql:// or postgresql+asyncpg://."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise BadConfig(
            "DATABASE_URL", "cannot be parsed", "Write postgresql://user@host/database"
        ) from error
    if url.drivername.split("+")[0] not in {"postgres", "postgresql"}:
        raise BadConfig("DATABASE_URL", f"names {url.drivername}, not Postgres", "Write postgresql://…")
    return url.set(drivername="postgresql")


def connect_arguments(url: URL) -> dict[str, Any]:
    """The arguments with which asyncpg reaches `url`."""
    host = url.host or url.query.get("host")
    return {
        name: value
        for name, value in {
            "host": host,
            "port": url.port,
            "user": url.username,
            "password": url.password,
            "database": url.database,
            "ssl": url.query.get("sslmode") or url.query.get("ssl"),
        }.items()
        if value is not None
    }


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn the driver's faults into ours; an outcome that may be unknown is the caller's to tell."""
    try:
        yield
    except CalltrailError:
        raise
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # The last is what asyncpg raises when a connection breaks off in the middle of a COPY.
        raise DatabaseUnavailable(f"Postgres cannot be reached: {error or type(error).__name__}") from error
    except asyncpg.PostgresError as error:
        raise translate(error) from error
    except DBAPIError as error:
        cause = error.orig.__cause__ if error.orig is not None else None
        if isinstance(cause, asyncpg.PostgresError):
            raise translate(cause) from error
        raise DatabaseUnavailable(f"Postgres cannot be reached: {error.orig}") from error


# SQLSTATE classes: connection exception, operator intervention, no resources, lock not available,
# serialization failure, read-only transaction (a standby that has not been promoted yet)
NOT_NOW = ("08", "57P", "53", "55P03", "40", "25006")
UNDEFINED = ("42P01", "42883", "42703")  # table, function, column


def translate(error: asyncpg.PostgresError) -> DatabaseError:
    """Our error for `error`, chosen by its SQLSTATE (PostgreSQL documentation, appendix A)."""
    state = getattr(error, "sqlstate", None) or ""
    if state.startswith(NOT_NOW):
        return DatabaseUnavailable(f"Postgres cannot do it now: {error} (SQLSTATE {state})")
    if state in UNDEFINED:
        return SchemaMismatch(f"{error}. Run `calltrail db upgrade`")
    return DatabaseError(f"Postgres: {error} (SQLSTATE {state})")
