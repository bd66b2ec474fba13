"""A query with its arguments, ready to run, and as text that a person can paste into a SQL client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from service.postgres import Database, database_errors


class Arguments:
    """The arguments of a statement under construction; `add` gives the placeholder of each."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


class Statement(msgspec.Struct, frozen=True):
    """SQL with placeholders `$1`, `$2` …, and what stands for them."""

    text: str
    arguments: tuple[Any, ...] = ()

    async def rows(self, database: Database) -> list[asyncpg.Record]:
        """Run it.

        Raises:
            DatabaseError: Postgres cannot.

        """
        with database_errors():
            return await database.pool.fetch(self.text, *self.arguments)

    def as_sql(self) -> str:
        """The statement with its arguments written out, to be run elsewhere."""
        return re.sub(r"\$(\d+)", lambda found: literal(self.arguments[int(found[1]) - 1]), self.text.strip())


def literal(value: Any) -> str:
    """A value as SQL writes it (standard_conforming_strings is on)."""
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    if isinstance(value, datetime):
        return f"timestamptz '{value.isoformat()}'"
    if isinstance(value, UUID):
        return f"uuid '{value}'"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"ARRAY[{', '.join(map(literal, value))}]"
    return "'" + str(value).replace("'", "''") + "'"
