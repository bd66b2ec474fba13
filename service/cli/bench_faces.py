"""Benchmark: how long the data of each page takes, on many made-up transfers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from uuid import UUID

import typer

from service import analytics
from service.analytics import TransferFilter
from service.audit.export import BUNDLE, Exporter
from service.audit.selection import Wanted
from service.audit.transfers import list_transfers, transfer_trail
from service.cli import show
from service.cli.options import AsJson, run
from service.cli.projection_commands import stopped
from service.config import load_settings
from service.log import EventLog, open_log
from service.log.checkpoints import Checkpoints, load_keys
from service.postgres import Database, database_errors, open_database
from service.postgres.schema import upgrade
from service.projections import Engine, Queries, TransferFacts, catalogue
from service.projections.engine import enter
from service.projections.histories import Histories
from service.projections.sql import live_generation

PAGE_DAYS = 30
"""What a page shows unless it is told otherwise; the made-up transfers are of a year."""
REPETITIONS = 20
EXPORTED_EVENTS = 100_000  # of which three in a hundred are transfers
FOLDING_S = 300.0

CALLS = f"""
INSERT INTO call_facts
SELECT {live_generation("transfer_facts")}, 'made-up-' || n, 'made-up-' || n, lpad(to_hex(n), 16, '0'),
       'Inbound', at, at::date, extract(hour FROM at), extract(isodow FROM at), at + interval '7 minutes',
       (15000 + n % 2000)::text, ARRAY[(15000 + n % 2000)::text], 100 + n % 900, true, 1, n, n
FROM (
    SELECT n, date_trunc('minute', now()) - interval '1 year' * (1 - n::float8 / $1) AS at
    FROM generate_series(1, $1::bigint) AS n
) AS made_up
"""  # noqa: S608 constants

# They are known from the beginning: no event tells of them, and a list shows what was known when it began.
TRANSFERS = f"""
INSERT INTO transfer_facts
SELECT {live_generation("transfer_facts")}, md5('made-up-' || n)::uuid, 'made-up-' || n, 'made-up-' || n,
       lpad(to_hex(n), 16, '0'), 1, 1 + (n % 7 = 0)::integer,
       at, at::date, extract(hour FROM at), extract(isodow FROM at), at, at + interval '2 seconds',
       (15000 + n % 2000)::text, (15000 + n % 2000)::text, (15000 + n * 31 % 2000)::text, 'agent',
       (15000 + n * 31 % 2000)::text, 'single-step', n % 3 > 0, 'Received', 'Transferred', 'AnsweredByAgent',
       reason, reason, 'TransferReason', false,
       (ARRAY['confirmed', 'confirmed', 'observed', 'failed', 'in_doubt'])[1 + n * 7 % 5], 0,
       n * 7 % 5 < 3, n % 11 = 0, false, 5 + sqrt((n * 7919) % 250000), n % 40, 300 + n % 900,
       jsonb_build_object('TransferReason', reason, 'CustomerId', n::text,
                          'Segment', (ARRAY['Private', 'Business', 'Premium'])[1 + n % 3]), n, -1, n
FROM (
    SELECT n, date_trunc('minute', now()) - interval '1 year' * (1 - n::float8 / $1) AS at,
           (ARRAY['Escalation', 'Billing', 'Sales', 'Language', 'Retention', 'Complaint', 'Fraud', 'Other'])
               [1 + floor(sqrt(n * 7919 % 64))] AS reason
    FROM generate_series(1, $1::bigint) AS n
) AS made_up
"""  # noqa: S608 constants

Page = Callable[[], Awaitable[Any]]


async def make_facts(database: Database, transfers: int) -> None:
    """Fill the live generation with `transfers` made-up transfers of the last year, one to a call."""
    connection = await database.connect()
    try:
        with database_errors():
            await enter(connection, [TransferFacts()])
            for statement in (CALLS, TRANSFERS):
                await connection.execute(statement, transfers, timeout=None)
            for table in ("call_facts", "transfer_facts"):
                await connection.execute(f"VACUUM ANALYZE {table}", timeout=None)
    finally:
        await connection.close()


def pages(database: Database, queries: Queries) -> dict[str, Page]:
    """What each page asks for."""
    lately = TransferFilter(since=datetime.now(UTC) - timedelta(days=PAGE_DAYS))
    narrow = TransferFilter(reason="Billing", user_data=(("Segment", "Premium"),))
    return {
        "transfers": lambda: list_transfers(database, queries, TransferFilter(), limit=50),
        "transfers_filtered": lambda: list_transfers(database, queries, narrow, limit=50),
        "transfers_by_agent": lambda: list_transfers(
            database, queries, TransferFilter(agent="15007"), sort="destination", limit=50
        ),
        "reasons": lambda: analytics.count_transfers(database, lately),
        "reasons_over_time": lambda: analytics.transfers_over_time(database, lately),
        "rate": lambda: analytics.transfer_rate(database, lately, bucket="day"),
        "talk_before_transfer": lambda: analytics.talk_before_transfer(database, lately),
        "chains": lambda: analytics.chains(database, lately),
        "pairs": lambda: analytics.pairs(database, lately),
        "hour_of_week": lambda: analytics.hour_of_week(database, lately),
        "quality": lambda: analytics.data_quality(database, lately),
    }


async def p95_ms(page: Page) -> float:
    """The 95th percentile of the time that a page's data takes, in milliseconds."""
    taken = []
    for _ in range(REPETITIONS):
        begun = time.perf_counter()
        await page()
        taken.append((time.perf_counter() - begun) * 1_000)
    return round(quantiles(taken, n=20)[-1], 1)


async def export_rate(database: Database, log: EventLog, folder: Path) -> float:
    """How many transfers a second go into an evidence bundle, of calls that were recorded and folded."""
    events = islice(Histories(live=200, agents=400).events(), EXPORTED_EVENTS)
    while page := list(islice(events, 2_000)):
        await log.append(page)
    engine = Engine(database, log, catalogue())
    engine.loop.start()
    await engine.reached(EXPORTED_EVENTS - 1, timeout_s=FOLDING_S)
    await engine.loop.stop()
    exporter = Exporter(log, Checkpoints(database, load_keys(folder)))
    begun = time.perf_counter()
    made = await exporter.export(Wanted(), BUNDLE, by="bench faces", target=folder / "transfers.zip")
    return round(made.transfers / (time.perf_counter() - begun), 1)


async def measure(database: Database, log: EventLog, folder: Path, transfers: int) -> dict[str, Any]:
    """Export from an empty database, then fill it with `transfers` and time the data of pages and a trail."""
    queries = Queries(database)
    exported = await export_rate(database, log, folder)
    await make_facts(database, transfers)
    middle: UUID = await database.pool.fetchval("SELECT md5('made-up-' || $1::bigint)::uuid", transfers // 2)
    return {
        "transfers": transfers,
        "page_p95_ms": {name: await p95_ms(page) for name, page in pages(database, queries).items()},
        "trail_p95_ms": await p95_ms(lambda: transfer_trail(database, queries, log, middle)),
        "export_transfers_per_s": exported,
    }


def faces(
    transfers: Annotated[int, typer.Option(min=100, help="How many to make up.")] = 20_000,
    as_json: AsJson = False,
) -> None:
    """Measure the data of each page on made-up transfers, in a database that is deleted afterwards.

    calltrail bench faces --transfers 1000000
    """

    async def main() -> None:
        with TemporaryDirectory(prefix="calltrail-faces-", ignore_cleanup_errors=True) as home:
            settings = load_settings(data_dir=Path(home))
            async with open_database(settings) as database:
                await upgrade(database.url)
                async with open_log(database, max_payload_bytes=settings.max_payload_bytes) as log:
                    result = await measure(database, log, Path(home), transfers)
            if as_json:
                show.print_json(result)
            else:
                rows = [*result["page_p95_ms"].items(), ("one trail", result["trail_p95_ms"])]
                show.print_table(f"{transfers} transfers: p95 in ms", ("page", "ms"), rows)
                show.console.print(f"{result['export_transfers_per_s']} transfers/s into a bundle")
            await stopped(Path(home))

    run(main())
