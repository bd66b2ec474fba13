"""The same answer elsewhere: as a request to the API, and as a statement for the database."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import NamedTuple

from fastapi import Request

from service.analytics import Statement
from service.web.frame import address


class Way(NamedTuple):
    """One way to get what a page shows."""

    name: str
    text: str


def curl(request: Request, path: str, query: Iterable[tuple[str, object]] = (), name: str = "curl") -> Way:
    """A command line that asks this service's API."""
    return Way(name, f"curl -s {shlex.quote(str(request.base_url).rstrip('/') + address(path, query))}")


def sql(statement: Statement, name: str = "SQL") -> Way:
    """`statement` with its arguments written out."""
    lines = (line for line in statement.as_sql().splitlines() if line.strip())
    return Way(name, "\n".join(lines))
