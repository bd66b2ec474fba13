from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.log import EventLog
from service.postgres import Database
from service.projections import Engine, catalogue
from service.redaction import (
    Redactor,
)


@pytest.fixture
async def engine(database: Database, log: EventLog) -> AsyncIterator[Engine]:
    running = Engine(database, log, catalogue())
    running.loop.start()
    yield running
    await running.loop.stop()


@pytest.fixture
def redactor(database: Database, log: EventLog, engine: Engine) -> Redactor:
    return Redactor(database, log, engine)
