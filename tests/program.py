"""`calltrail COMMAND` as a program of its own, as tests run it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import URL

COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'calltrail'; from service.cli import main; main()",
)
DEADLINE_S = 180.0  # of a program, of several at a time on a busy machine


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    status: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(database: URL | None = None, **more: str) -> dict[str, str]:
    """This process's environment, with what the program needs to find our code and the database."""
    given = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "200", **more}
    if database is not None:
        given["DATABASE_URL"] = database.render_as_string(hide_password=False)
    return os.environ | given


async def start(database: URL, *arguments: str, **more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(database, **more),
    )


async def calltrail(database: URL, *arguments: str, **more: str) -> Ended:
    """Run a command to its end; `more` is added to its environment."""
    process = await start(database, *arguments, **more)
    out, error = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), error.decode())
