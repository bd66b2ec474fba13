"""The same answer elsewhere: as a request to the API, and as a statement for the database."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from fastapi import Request

from service.log import rfc3339


class Way(NamedTuple):
    """One way to get what a page shows."""

    name: str
    text: str


def curl(request: Request, path: str, query: Mapping[str, object] | None = None) -> Way:
    """A command line that asks this service's API."""
    kept = {name: value for name, value in (query or {}).items() if value not in {None, ""}}
    address = str(request.base_url).rstrip("/") + path + (f"?{urlencode(kept)}" if kept else "")
    return Way("curl", f"curl -s {shlex.quote(address)}")


def sql(statement: str, arguments: Sequence[Any] = ()) -> Way:
    """`statement` with its arguments written out."""
    written = re.sub(r"\$(\d+)", lambda found: literal(arguments[int(found[1]) - 1]), statement)
    lines = [line.strip() for line in written.strip().splitlines()]
    return Way("SQL", "\n".join(filter(None, lines)))


def literal(value: Any) -> str:
    """A value as SQL writes it."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case list() | tuple():
            return f"ARRAY[{', '.join(map(literal, value))}]" if value else "'{}'"
        case datetime():
            return f"'{rfc3339(value)}'::timestamptz"
        case _:
            return "'" + str(value).replace("'", "''") + "'"
