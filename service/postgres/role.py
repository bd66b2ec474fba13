"""The role that the service takes in its database: it may append to the log, and not change what is there.

Migrations run as the user of the URL, who owns everything; the service itself sets the role
`calltrail_service` on every connection. Where that user may not create roles there is none, and the log is
guarded by its triggers alone.
"""

from __future__ import annotations

import asyncpg

ROLE = "calltrail_service"

TAKE = f"""
SELECT set_config('role', rolname, false) FROM pg_roles
WHERE rolname = '{ROLE}' AND pg_has_role(rolname, 'USAGE')
  AND has_table_privilege(rolname, to_regclass('event_log'), 'INSERT')
"""  # noqa: S608 a constant
"""Takes the role, if there is one and the schema has been granted to it."""

GRANT = "SELECT calltrail_grant_service()"
KEEP_FUNCTIONS = "SELECT calltrail_keep_functions()"
"""Takes from everybody else the functions that run with their owner's rights."""

NOT_GRANTED = (
    f"this database user may not create the role {ROLE}: the log is guarded by triggers alone. "
    f"Let an administrator run: CREATE ROLE {ROLE} NOLOGIN; GRANT {ROLE} TO the user; "
    "then run `calltrail db upgrade`"
)


async def take_role(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Take the service's role for the rest of the connection's life."""
    await connection.execute(TAKE)
