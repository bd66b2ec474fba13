from __future__ import annotations

import itertools
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from databases import execute
from sqlalchemy.engine import URL

from service.cli.doctor import examine
from service.config import Settings
from service.log import EventLog
from service.log.checkpoints import Checkpoints, load_keys
from service.postgres import Database
from service.projections import Engine, catalogue
from service.projections.histories import Histories


async def findings(settings: Settings) -> dict[str, tuple[str, str, str]]:
    return {one.what: (one.verdict, one.finding, one.remedy) async for one in examine(settings)}


@pytest.fixture
async def settings(database_url: URL, database: Database, log: EventLog, tmp_path: Path) -> Settings:
    """A log with a few calls, folded and signed."""
    await log.append(list(itertools.islice(Histories(live=4, agents=5).events(), 300)))
    engine = Engine(database, log, catalogue())
    engine.loop.start()
    assert await engine.reached(299, timeout_s=60)
    await engine.loop.stop()
    await Checkpoints(database, load_keys(tmp_path)).sign()
    return Settings(database_url=database_url.render_as_string(hide_password=False), data_dir=tmp_path)


async def test_all_is_well(settings: Settings) -> None:
    found = await findings(settings)
    assert {what: verdict for what, (verdict, _, _) in found.items() if what != "database"} == dict.fromkeys(
        ("disk", "schema", "clock", "integrity", "sessions", "transfers", "projections"), "ok"
    )
    assert "300 events" in found["integrity"][1]


async def test_a_server_that_may_lose_commits_is_named(settings: Settings, database: Database) -> None:
    off = await database.pool.fetchval("SHOW fsync") == "off"
    verdict, finding, remedy = (await findings(settings))["database"]
    assert (verdict == "broken" and "fsync = off" in finding and "fsync" in remedy) == off


async def test_a_changed_tree_is_broken(settings: Settings, database: Database) -> None:
    await database.pool.execute("UPDATE log_head SET tree = decode(repeat('00', length(tree)), 'hex')")
    verdict, _, remedy = (await findings(settings))["integrity"]
    assert (verdict, remedy) == ("broken", "calltrail verify says where")


async def test_views_that_are_behind_and_events_set_aside_are_told(
    settings: Settings, database: Database
) -> None:
    await database.pool.execute(
        "INSERT INTO projection_set_aside (name, generation, position, reason) "
        "SELECT name, generation, 7, 'no such thing' FROM projection WHERE name = 'coverage'"
    )
    verdict, finding, remedy = (await findings(settings))["projections"]
    assert verdict == "broken"
    assert "coverage" in finding
    assert "--set-aside" in remedy


async def test_a_view_that_nobody_keeps_is_told(settings: Settings, database: Database) -> None:
    await database.pool.execute("DELETE FROM projection WHERE name = 'transfer_facts'")
    verdict, finding, remedy = (await findings(settings))["projections"]
    assert (verdict, finding) == ("look", "nobody keeps transfer_facts")
    assert "older than the schema" in remedy


async def test_a_clock_that_was_ahead_is_told(settings: Settings, database: Database) -> None:
    await database.pool.execute("UPDATE log_head SET recorded_at = now() + interval '1 hour'")
    assert (await findings(settings))["clock"][0] == "look"


async def test_an_old_schema_and_a_missing_server_end_the_examination(
    settings: Settings, database_url: URL
) -> None:
    await execute(database_url, "UPDATE alembic_version SET version_num = '0001'")
    found = await findings(settings)
    assert found["schema"][0] == "broken"
    assert found["schema"][2] == "calltrail db upgrade"
    assert "projections" not in found
    away = settings.model_copy(update={"database_url": "postgresql://127.0.0.1:1/none"})
    assert (await findings(away))["database"][0] == "broken"


async def test_a_full_disk_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 1 << 20))
    found = await findings(Settings(data_dir=tmp_path, database_url=None))
    assert found["disk"][0] == "broken"
