"""Looks for values in everything that a database holds: every table of every schema, as raw as SQL can."""

from __future__ import annotations

import asyncpg
from sqlalchemy.engine import URL

from service.log.codec import Codecs
from service.postgres import connect_arguments

TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname <> 'pg_toast' ORDER BY 1
"""


async def tables_with(url: URL, *values: str) -> dict[str, list[str]]:
    """The values found, by table: as text, as the bytes of a bytea, and in payloads as they are read."""
    connection = await asyncpg.connect(**connect_arguments(url))
    try:
        codecs = Codecs()
        await codecs.load(connection)
        found: dict[str, list[str]] = {}
        for (table,) in await connection.fetch(TABLES):
            rows = [row["text"] for row in await connection.fetch(f"SELECT t::text AS text FROM {table} t")]
            if table.startswith("public.event_log"):
                stored = await connection.fetch(f"SELECT codec, payload FROM {table}")
                rows += [codecs.decode(*row).decode(errors="replace") for row in stored]
            for value in values:
                spelled = (value, value.encode().hex())
                if any(spelling in row for row in rows for spelling in spelled):
                    found.setdefault(table, []).append(value)
        return found
    finally:
        await connection.close()
