"""The example of `docs/projections.md` works as it stands there."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

from projecting import append, caught_up

from service.log import EventLog
from service.postgres import Database
from service.projections import Engine, Rebuilder
from service.projections.projection import Projection

DOCUMENT = Path(__file__).parents[3] / "docs" / "projections.md"
IMPORTS = """
import sqlalchemy as sa
from service.projections.projection import Key, Recorded, Row
metadata = sa.MetaData()
"""


def example() -> tuple[Projection, str]:
    """The documented projection, in a module `holds_example`, and the SQL of its table."""
    text = DOCUMENT.read_text()
    python, sql = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "sql"))
    assert python
    assert sql
    module: Any = types.ModuleType("holds_example")
    exec(IMPORTS + python[1], module.__dict__)
    sys.modules["holds_example"] = module
    assert len(python[1].splitlines()) <= 35
    return module.Holds(), sql[1]


async def test_the_documented_projection_runs_live_and_is_rebuilt(database: Database, log: EventLog) -> None:
    projection, sql = example()
    await database.pool.execute(sql)
    await append(log, 500)
    held = sum(b'"state":"Held"' in one.payload for one in await log.read())
    engine = Engine(database, log, [projection])
    engine.loop.start()
    await caught_up(engine, log)
    await engine.loop.stop()
    assert await database.pool.fetchval("SELECT sum(holds) FROM holds") == held
    report = await Rebuilder(database, log, shares=2).rebuild(["holds_example:Holds"], check=True)
    assert report.different == {"holds": 0}
    assert report.shares == 1
    assert await database.pool.fetchval("SELECT sum(holds) FROM holds WHERE generation = 2") == held
