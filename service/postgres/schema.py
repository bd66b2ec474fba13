"""The schema's revisions. Alembic owns the schema; this runs it, from a checkout or an installed wheel."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, Connection
from sqlalchemy.util import await_only

from service.errors import SchemaMismatch
from service.postgres import Database, database_errors

PACKAGE = Path(__file__).parent.parent


def migrations() -> Path:
    """Where the migrations are: inside an installed package, or beside it in a checkout."""
    installed = PACKAGE / "_migrations"
    return installed if installed.is_dir() else PACKAGE.parent / "migrations"


async def upgrade(url: URL) -> None:
    """Bring the schema to this program's revision. Several at once take turns."""
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    text = url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    config.set_main_option("sqlalchemy.url", text.replace("%", "%%"))
    with database_errors():
        await asyncio.to_thread(command.upgrade, config, "head")


def head_revision() -> str:
    """The revision that this program needs."""
    head = ScriptDirectory(str(migrations())).get_current_head()
    assert head is not None
    return head


async def check(database: Database) -> None:
    """Make sure that the schema is at this program's revision.

    Raises:
        SchemaMismatch: it is not.

    """
    with database_errors():
        there = await database.pool.fetchval("SELECT to_regclass('alembic_version')::text")
        revision = await database.pool.fetchval("SELECT version_num FROM alembic_version") if there else None
    if revision != head_revision():
        raise SchemaMismatch(
            f"the schema is at revision {revision}, this program needs {head_revision()}. "
            "Run `calltrail db upgrade`"
        )


def run_script(connection: Connection, script: str) -> None:
    """Run several statements at once, in the connection's transaction. For migrations."""
    driver = connection.connection.driver_connection
    assert driver is not None
    connection.exec_driver_sql("SELECT 1")  # the transaction begins with the first statement
    await_only(driver.execute(script))
