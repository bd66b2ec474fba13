"""The schema `analytics`: documented, read by a role that can do nothing else, by index and never the log."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
import pytest
from sqlalchemy.engine import URL

from service.analytics import Statement, TransferFilter, statements
from service.audit.transfers import list_statement
from service.cli.bench_faces import make_facts
from service.postgres import Database, connect_arguments, open_pools
from service.postgres.schema import upgrade
from service.projections import Coverage, Queries
from service.projections.engine import enter

DOCS = Path(__file__).parents[3] / "docs"
DICTIONARY, DASHBOARD = DOCS / "analytics.md", DOCS / "dashboards" / "transfers.json"
LATELY = TransferFilter(since=datetime.now(UTC) - timedelta(days=3))
COLUMNS = """
SELECT c.relname AS view, a.attname AS column, col_description(c.oid, a.attnum) AS meaning,
       obj_description(c.oid, 'pg_class') AS view_meaning
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'analytics'::regnamespace ORDER BY c.relname, a.attnum
"""


async def test_every_view_and_column_has_a_comment_and_stands_in_the_dictionary(database: Database) -> None:
    kinds = await database.pool.fetch(
        "SELECT relkind FROM pg_class WHERE relnamespace = 'analytics'::regnamespace"
    )
    assert {row["relkind"] for row in kinds} == {b"v"}
    columns = await database.pool.fetch(COLUMNS)
    text = DICTIONARY.read_text()
    for row in columns:
        assert row["view_meaning"], row["view"]
        assert row["meaning"], (row["view"], row["column"])
        section = text.partition(f"### `{row['view']}`")[2].partition("\n### ")[0]
        assert row["view_meaning"] in section
        assert f"| `{row['column']}` | {row['meaning']} |" in section
    assert len(columns) == len(re.findall(r"^\| `\w+` \|", text.partition("## Dictionary")[2], re.MULTILINE))


@pytest.fixture
async def analyst(server_url: URL) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """The analyst's connection to a database of its own, made by the migrations alone."""
    name = "analysts_database"
    owner = await asyncpg.connect(**connect_arguments(server_url))
    await owner.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await owner.execute(f"CREATE DATABASE {name}")
    url = server_url.set(database=name)
    await upgrade(url)
    async with open_pools(url) as database:
        await make_facts(database, 100)
    if await owner.fetchval("SELECT to_regrole('calltrail_analyst')") is None:
        pytest.skip("this database user may not create roles")
    connection = await asyncpg.connect(**connect_arguments(url))
    await connection.execute("SET SESSION AUTHORIZATION calltrail_analyst")
    yield connection
    await connection.close()
    await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await owner.close()


async def test_the_analyst_reads_the_views_and_can_do_nothing_else(
    analyst: asyncpg.Connection[asyncpg.Record],
) -> None:
    assert await analyst.fetchval("SELECT count(*) FROM analytics.fact_transfer") == 100
    views = await analyst.fetch("SELECT viewname FROM pg_views WHERE schemaname = 'analytics'")
    for view in views:
        await analyst.fetch(f"SELECT * FROM analytics.{view['viewname']} LIMIT 1")
    tables = await analyst.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    )
    assert len(tables) > 10
    for table in tables:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await analyst.execute(f"SELECT * FROM {table['name']} LIMIT 1")
    for statement in (
        "DELETE FROM analytics.fact_transfer",
        "CREATE TABLE analytics.mine (n integer)",
        "CREATE TABLE public.mine (n integer)",
        "SELECT event_log_redact(0, '')",
        "SELECT event_log_ensure_partition(1000000000)",
        "SET ROLE calltrail_service",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await analyst.execute(statement)
    lent = await analyst.fetch(
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.prosecdef "
        "AND has_function_privilege(p.oid, 'EXECUTE') AND p.pronamespace <> 'pg_catalog'::regnamespace"
    )
    assert lent == []


async def test_each_panel_of_the_dashboard_shows_something(
    analyst: asyncpg.Connection[asyncpg.Record],
) -> None:
    """Grafana puts the dashboard's time range in place of its one macro."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert len(dashboard["panels"]) > 10
    for panel in dashboard["panels"]:
        [target] = panel["targets"]
        statement = re.sub(
            r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN '2000-01-01Z' AND '2100-01-01Z'", target["rawSql"]
        )
        assert "$" not in statement
        prepared = await analyst.prepare(statement)
        columns = {one.name: one.type.name for one in prepared.get_attributes()}
        assert target["format"] == "table" or columns["time"] == "timestamptz", panel["title"]
        rows = await prepared.fetch()
        assert any(value is not None for row in rows for value in row.values()), panel["title"]


async def test_the_analysts_queries_are_read_only_and_end(
    analyst: asyncpg.Connection[asyncpg.Record],
) -> None:
    settings = await analyst.fetchval(
        "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'calltrail_analyst'::regrole"
    )
    assert set(settings) == {
        "statement_timeout=30s",
        "default_transaction_read_only=on",
        "search_path=analytics",
    }


QUESTIONS = {
    "counts": statements.count_transfers(LATELY, by="agent", top=5),
    "over time": statements.transfers_over_time(LATELY, by="data.Segment", bucket="day", top=5),
    "rate": statements.transfer_rate(LATELY, bucket="day"),
    "talk": statements.talk_before_transfer(LATELY, by="reason", top=5),
    "chains": statements.chains(LATELY),
    "pairs": statements.pairs(LATELY, limit=5),
    "heat map": statements.hour_of_week(LATELY),
    "quality": statements.data_quality(LATELY),
    "newest": list_statement(TransferFilter(), limit=50),
    "of an agent": list_statement(TransferFilter(agent="15007"), limit=50),
    "to a number": list_statement(TransferFilter(destination="15007"), limit=50),
    "of a call": list_statement(TransferFilter(call_id="made-up-7")),
    "by a key": list_statement(TransferFilter(user_data=(("CustomerId", "77"),))),
}


async def test_no_question_reads_the_log_nor_the_whole_of_the_facts(database: Database) -> None:
    await make_facts(database, 20_000)

    async def plan(statement: Statement) -> str:
        rows = await database.pool.fetch(f"EXPLAIN {statement.text}", *statement.arguments)
        return "\n".join(row[0] for row in rows)

    for name, statement in QUESTIONS.items():
        found = await plan(statement)
        assert "event_log" not in found, name
        assert "Seq Scan on transfer_facts" not in found, (name, found)
        assert "Seq Scan on call_facts" not in found, (name, found)
    assert "requested_at" in await plan(QUESTIONS["newest"])
    assert "user_data" in await plan(QUESTIONS["by a key"])


async def test_a_gap_is_the_audits(database: Database) -> None:
    await make_facts(database, 20_000)
    connection = await database.connect()
    await enter(connection, [Coverage()])
    await connection.close()
    now = datetime.now(UTC)
    spans = [
        {"kind": "complete", "from": now - timedelta(days=300), "to": now - timedelta(days=200)},
        {"kind": "missing", "from": now - timedelta(days=200), "to": now - timedelta(days=90)},
        {"kind": "complete", "from": now - timedelta(days=90), "to": now - timedelta(days=10)},
        {"kind": "doubtful", "from": now - timedelta(days=10), "to": None},
    ]
    told = msgspec.json.encode([{"why": "", "position": place, **one} for place, one in enumerate(spans)])
    await database.pool.execute(
        "INSERT INTO coverage (generation, agent, spans, last_position) VALUES (1, '15007', $1, 0)",
        told.decode(),
    )
    queries, wanted = Queries(database), TransferFilter(agent="15007", overlaps_gap=True)
    rows = await database.pool.fetch("SELECT * FROM analytics.fact_transfer WHERE agent_id = '15007'")
    expected = {
        row["transfer_id"]
        for row in rows
        if await queries.gaps_of("15007", row["recorded_at"], row["settled_at"])
    }
    assert 0 < len(expected) < len(rows)
    assert {row["transfer_id"] for row in rows if row["has_gap"]} == expected
    found = await list_statement(wanted, limit=1_000).rows(database)
    assert {row["transfer_id"] for row in found} == expected
    assert await queries.gaps_of("15008", rows[0]["recorded_at"], None) == []


async def test_a_statement_can_be_pasted_as_it_is_shown(database: Database) -> None:
    await make_facts(database, 200)
    wanted = TransferFilter(
        since=datetime(2020, 1, 1, tzinfo=UTC),
        user_data=(("Segment", "O'Neil"), ("n", "7")),
        overlaps_gap=False,
        commanded=True,
        min_talk_s=1.5,
        agent="15007",
    )
    for statement in (statements.pairs(wanted, limit=3), *QUESTIONS.values()):
        pasted = await database.pool.fetch(statement.as_sql())
        assert pasted == await statement.rows(database)
