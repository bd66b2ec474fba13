"""`calltrail reasons`, `transfers` and `transfer ID`, on a terminal of 80 columns."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console
from sqlalchemy.engine import URL
from typer.testing import CliRunner

from service.cli import app, exit_status, show
from service.errors import CalltrailError
from service.log import EventLog
from service.projections.histories import Histories


async def test_analytics_by_command(
    database_url: URL, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))
    await log.append(list(itertools.islice(Histories(live=6, agents=8).events(), 600)))

    async def calltrail(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, arguments)

    async def document(*arguments: str) -> Any:
        done = await calltrail(*arguments, "--json")
        assert done.exit_code == 0, done
        return json.loads(done.output)

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
    monkeypatch.setattr(show, "console", Console(width=80, highlight=False))
    for command in (["transfer", one], ["transfers"], ["reasons"], ["reasons", "--bucket", "day"]):
        done = await calltrail(*command)
        assert done.exit_code == 0, done
        assert max(map(len, done.output.splitlines())) <= 80, done.output
    table = await calltrail("reasons", "--by", "agent", "--csv")
    assert sum(int(row["transfers"]) for row in csv.DictReader(io.StringIO(table.output))) == len(transfers)
    for wrong in (["--by", "shoe-size"], ["--data", "x"], ["--bucket", "second"]):
        refused = (await calltrail("reasons", *wrong)).exception
        assert isinstance(refused, CalltrailError)
        assert exit_status(refused) == 2
