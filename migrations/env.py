from __future__ import annotations

import asyncio
import logging

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from service.postgres.role import GRANT, KEEP_FUNCTIONS, NOT_GRANTED

logger = logging.getLogger("calltrail.migrations")

LOCK = 7_232_501_144  # of our own choosing: two programs that upgrade at once take turns


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        # A migration that cannot have its lock soon gives up instead of stopping the traffic behind it.
        connection.execute(text("SET LOCAL lock_timeout = '4s'"))
        context.run_migrations()
        if connection.execute(text("SELECT to_regproc('calltrail_grant_service')")).scalar() is None:
            return
        if not connection.execute(text(GRANT)).scalar():
            logger.warning(NOT_GRANTED)
        if connection.execute(text("SELECT to_regproc('calltrail_keep_functions')")).scalar() is not None:
            connection.execute(text(KEEP_FUNCTIONS))


async def connect_and_migrate(url: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


url = context.config.get_main_option("sqlalchemy.url")
if url is None:
    message = "sqlalchemy.url is not set: use `calltrail db upgrade`, which knows the database"
    raise SystemExit(message)
asyncio.run(connect_and_migrate(url))
