"""Kill a redaction at each of its steps: ordered again, it is carried to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from raw_tables import tables_with

from service.log import EventLog
from service.log.verify import verify_log
from service.postgres import Database
from service.projections import Engine, catalogue
from service.projections.histories import Session, notification
from service.redaction import list_redactions

REDACTING = Path(__file__).parent / "redacting.py"
CALL, CALLER, CUSTOMER = "01RCC3N118B1V0SL8O7GK2LAES00000D", "03012345671", "CU-4711-0815"
EVENTS = 8


async def redact(database: Database, step: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(REDACTING),
        database.url.render_as_string(hide_password=False),
        CALL,
        step,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    async with asyncio.timeout(60):
        return await process.wait()


@pytest.mark.parametrize("step", ["batch 0", "batch 1", "batch 2", "batch 3", "fold", "clear"])
async def test_a_redaction_that_was_killed_is_carried_on(
    log: EventLog, database: Database, step: str
) -> None:
    agent = Session("15000")
    told = notification("15000", CALL, "Established", [CALLER], {"Customer": CUSTOMER})
    await log.append([agent.hears(told.replace(b"Established", b"S%d" % n), CALL) for n in range(EVENTS)])
    engine = Engine(database, log, catalogue())
    engine.loop.start()
    assert await engine.reached(EVENTS - 1, timeout_s=60)
    await engine.loop.stop()
    await database.pool.execute("ANALYZE")  # samples of the rows stand in the statistics now

    assert await redact(database, step) == -signal.SIGKILL
    assert (await verify_log(database)).intact
    assert await tables_with(database.url, CALLER, CUSTOMER)
    assert await redact(database, "never") == 0

    assert await tables_with(database.url, CALLER, CUSTOMER) == {}
    report = await verify_log(database)
    assert (report.differences, report.redacted) == ([], list(range(EVENTS)))
    named = [position for fact in await list_redactions(log) for position in fact["events"]]
    assert named == list(range(EVENTS))
