from __future__ import annotations

import asyncpg
import pytest

from service.cli.traffic import Traffic
from service.log import EventLog
from service.log.verify import Kind, verify_log
from service.postgres import Database

FACT = {"call_id": "1", "fields": ["userData.*"], "who": "dpo", "why": "asked for"}


async def test_a_redacted_log_verifies_and_says_what_was_redacted(log: EventLog, database: Database) -> None:
    await log.append(list(Traffic(seed=5, sessions=3).events(300)))
    before = await verify_log(database)
    at = await log.redact({7: b"{}\nblank", 270: b""}, FACT, stream="redactions")
    [seventh, last] = await log.at([7, 270])
    assert (seventh.payload, seventh.salt, last.payload) == (b"{}\nblank", None, b"")
    report = await verify_log(database)
    assert (report.differences, report.redacted, at) == ([], [7, 270], before.size)


async def test_a_redaction_that_is_not_on_record_is_a_forgery(log: EventLog, database: Database) -> None:
    await log.append(list(Traffic(seed=5, sessions=3).events(300)))
    await log.redact({7: b"blank"}, FACT, stream="redactions")
    await database.pool.execute("SELECT event_log_redact(7, 'other'), event_log_redact(8, 'other')")
    report = await verify_log(database)
    assert [one[:2] for one in report.differences] == [(7, Kind.PAYLOAD), (8, Kind.PAYLOAD)]


async def test_even_while_redacting_nothing_else_can_be_changed(
    log: EventLog, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await log.append(list(Traffic(seed=5, sessions=3).events(10)))
    for change in ("payload = ''", "stream = 'x', salt = NULL", "commitment = salt, salt = NULL"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await owner.execute(
                f"SET calltrail.redacting = 'on'; UPDATE event_log SET {change} WHERE position = 5"
            )
