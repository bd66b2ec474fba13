"""`calltrail reasons`, `transfers` and `transfer ID`, as programs, on a terminal of 80 columns."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import os
import sys
from typing import Any

from sqlalchemy.engine import URL

from service.log import EventLog
from service.projections.histories import Histories

PROGRAM = "import sys; sys.argv[0] = 'calltrail'; from service.cli import main; main()"


async def calltrail(database: URL, *arguments: str) -> tuple[int, str]:
    """A command's exit status, and what it wrote, to standard output or to standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ
        | {
            "DATABASE_URL": database.render_as_string(hide_password=False),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "COLUMNS": "80",
        },
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_analytics_by_command(database_url: URL, log: EventLog) -> None:
    await log.append(list(itertools.islice(Histories(live=6, agents=8).events(), 600)))

    async def document(*arguments: str) -> Any:
        status, out = await calltrail(database_url, *arguments, "--json")
        assert status == 0, out
        return json.loads(out)

    listed = await document("transfers", "--sort", "agent")
    transfers = listed["transfers"]
    assert listed["total"] == len(transfers) > 5
    reasons = await document("reasons")
    assert sum(row["transfers"] for row in reasons["rows"]) == len(transfers)
    first = reasons["rows"][0]
    assert (await document("transfers", "--reason", first["value"]))["total"] == first["transfers"]
    assert (await document("transfers", "--data", "Segment=Private"))["total"] == len(transfers)
    assert (await document("transfers", "--observed"))["total"] == 0

    one = transfers[0]["transfer_id"]
    trail = await document("transfer", "show", one)
    assert [event["position"] for event in trail["events"] if event["role"] == "step"]
    for command in (["transfer", one], ["transfers"], ["reasons"], ["reasons", "--bucket", "day"]):
        status, out = await calltrail(database_url, *command)
        assert status == 0, out
        assert max(map(len, out.splitlines())) <= 80, out
    _, out = await calltrail(database_url, "reasons", "--by", "agent", "--csv")
    assert sum(int(row["transfers"]) for row in csv.DictReader(io.StringIO(out))) == len(transfers)
    for wrong in (["--by", "shoe-size"], ["--data", "x"], ["--bucket", "second"]):
        status, out = await calltrail(database_url, "reasons", *wrong)
        assert status == 2, out
        assert "calltrail: " in out
