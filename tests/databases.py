"""Doing something to a database as its owner, outside of everything that is tested."""

from __future__ import annotations

import asyncpg
from sqlalchemy.engine import URL

from service.postgres import connect_arguments


async def execute(url: URL, statement: str) -> None:
    connection = await asyncpg.connect(**connect_arguments(url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
