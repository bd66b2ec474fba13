"""`calltrail verify` writes into the log that it was verified, and with what result."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest
from click.testing import Result
from sqlalchemy.engine import URL
from typer.testing import CliRunner

from service.cli import app
from service.events import VERIFICATION_STREAM, LogVerified, decode
from service.log import EventLog, NewEvent, Producer

CALLTRAIL = CliRunner()


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, database_url: URL, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url.render_as_string(hide_password=False))
    monkeypatch.setenv("CALLTRAIL_DATA_DIR", str(tmp_path))


async def verify(*options: str) -> Result:
    return await asyncio.to_thread(CALLTRAIL.invoke, app, ["verify", "--json", *options])


async def events(log: EventLog, *payloads: bytes) -> None:
    await log.append([NewEvent(Producer.new().key, "test-1", "Tested", one) for one in payloads])


async def recorded(log: EventLog) -> list[tuple[int, LogVerified]]:
    found = []
    for event in await log.read_stream(VERIFICATION_STREAM):
        read = decode(event.kind, event.payload)
        assert read is not None
        assert isinstance(read[0], LogVerified)
        found.append((event.position, read[0]))
    return found


async def test_the_result_is_recorded_unless_one_says_not_to(log: EventLog) -> None:
    await events(log, b"{}", b"{}")
    done = await verify()
    told = json.loads(done.stdout)
    assert (done.exit_code, told["intact"], told["size"], told["recorded"]) == (0, True, 2, 2)
    [(position, fact)] = await recorded(log)
    assert (position, fact.size, fact.root, fact.differences) == (2, 2, told["root"], ())
    unrecorded = json.loads((await verify("--no-record")).stdout)
    assert (unrecorded["size"], unrecorded["recorded"]) == (3, None)
    assert len(await recorded(log)) == 1


async def test_what_was_altered_is_recorded(log: EventLog, owner: asyncpg.Connection[asyncpg.Record]) -> None:
    await events(log, b"{}", b"{}", b"{}")
    await owner.execute("SET session_replication_role = replica")  # as somebody with every right would
    await owner.execute("UPDATE event_log SET payload = 'forged', codec = 0 WHERE position = 1")
    done = await verify()
    assert (done.exit_code, json.loads(done.stdout)["recorded"]) == (1, 3)
    [(_, fact)] = await recorded(log)
    assert [position for position, _, _ in fact.differences] == [1]


async def test_where_nothing_may_be_written_the_verdict_stands(
    log: EventLog, database_url: URL, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await events(log, b"{}")
    await owner.execute(f'ALTER DATABASE "{database_url.database}" SET default_transaction_read_only = on')
    done = await verify()
    told = json.loads(done.stdout)
    assert (done.exit_code, told["intact"], told["recorded"]) == (0, True, None)
    assert "could not be recorded" in done.stderr
