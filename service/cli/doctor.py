"""`calltrail doctor`: is everything as it should be, and if not, what to do."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import typer

from service.cli import show
from service.cli.options import AsCsv, AsJson, DataDir, run
from service.config import Settings, load_settings
from service.errors import CalltrailError, DatabaseError, SchemaMismatch, TlogError
from service.log import EventLog, open_log
from service.log import sql as log_sql
from service.log.checkpoints import PUBLIC_FILE, read_public
from service.log.tiles import plan_hashes
from service.postgres import Database, database_errors, open_database
from service.postgres.schema import check
from service.projections import Engine, Queries, catalogue
from service.recorder import list_sessions
from service.tlog.checkpoint import verify_checkpoint
from service.tlog.merkle import Frontier
from service.tlog.note import Ed25519Verifier, Note
from service.tlog.plans import root_plan

Verdict = Literal["ok", "look", "broken"]
LITTLE_SPACE = 2 << 30  # bytes
NO_SPACE = 256 << 20
MOST_LAG_S = 10.0
MOST_CLOCK_S = 1.0
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
WELL = frozenset({"open", "starting"})
MOST_NAMED = 3
CHECKPOINT_AGE = timedelta(minutes=10)


class Finding(NamedTuple):
    """What one check found. `remedy` says what to do; it is empty when all is well."""

    what: str
    verdict: Verdict
    finding: str
    remedy: str = ""


def doctor(data_dir: DataDir = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """Check database, schema, log, projections, sessions, disk and clock. Exit status 1: something is broken.

    calltrail doctor
    calltrail doctor --json
    """
    findings: list[Finding] = []

    async def main() -> None:
        findings.extend([one async for one in examine(load_settings(data_dir=data_dir))])

    run(main())
    rows = [one._asdict() for one in findings]
    show.print_list(
        rows,
        lambda: show.print_table("Doctor", ("what", "verdict", "finding", "what to do"), findings),
        document={"findings": rows},
        nothing="Nothing was checked.",
        as_json=as_json,
        as_csv=as_csv,
    )
    if any(one.verdict == "broken" for one in findings):
        raise typer.Exit(1)


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Every check, in an order in which each needs only those before it."""
    yield disk(settings)
    try:
        async with open_database(settings) as database:
            yield await durability(database)
            try:
                await check(database)
            except SchemaMismatch as error:
                yield Finding("schema", "broken", str(error), "calltrail db upgrade")
                return
            yield Finding("schema", "ok", "at this program's revision")
            yield await clock(database)
            yield await integrity(database, settings)
            yield await sessions(database)
            yield await doubts(database)
            async with open_log(database, max_payload_bytes=settings.max_payload_bytes) as log:
                yield await projections(database, log)
    except DatabaseError as error:
        yield Finding("database", "broken", str(error), "Start Postgres, or correct DATABASE_URL")


def disk(settings: Settings) -> Finding:
    """Room for the log; of a server elsewhere only its own machine knows."""
    if settings.database_url:
        return Finding("disk", "ok", "the database is on a server of its own: watch its disk there")
    place = settings.data_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    said = f"{free / (1 << 30):,.1f} GiB free for {settings.data_dir}"
    if free < NO_SPACE:
        return Finding("disk", "broken", said, "Make room: Postgres stops when the disk is full")
    return (
        Finding("disk", "look", said, "Make room soon")
        if free < LITTLE_SPACE
        else Finding("disk", "ok", said)
    )


async def durability(database: Database) -> Finding:
    """Whether what Postgres acknowledges survives a power cut."""
    with database_errors():
        rows = await database.pool.fetch(
            "SELECT name, setting FROM pg_settings WHERE name = ANY($1::text[])", list(DURABLE)
        )
        version = await database.pool.fetchval("SHOW server_version")
    off = [f"{row['name']} = {row['setting']}" for row in rows if row["setting"] != DURABLE[row["name"]]]
    if off:
        remedy = "Set fsync, full_page_writes and synchronous_commit to on"
        return Finding("database", "broken", f"Postgres {version} may lose commits: {', '.join(off)}", remedy)
    return Finding("database", "ok", f"Postgres {version}, commits are durable")


async def clock(database: Database) -> Finding:
    """Whether Postgres's clock, which stamps events, agrees with this machine's and with the log."""
    with database_errors():
        before = datetime.now(UTC)
        theirs = await database.pool.fetchval("SELECT clock_timestamp()")
        ours = before + (datetime.now(UTC) - before) / 2
        held = await database.pool.fetchval("SELECT recorded_at FROM log_head")
    apart = abs((theirs - ours).total_seconds())
    if held is not None and held > theirs + timedelta(seconds=MOST_CLOCK_S):
        return Finding(
            "clock", "look", f"events are stamped {held}, which is yet to come", "Correct the clock"
        )
    if apart > MOST_CLOCK_S:
        said = f"Postgres's clock is {apart:.1f} s from this machine's"
        return Finding("clock", "look", said, "Synchronise both (chrony, NTP)")
    return Finding("clock", "ok", f"{apart * 1000:.0f} ms from Postgres's; the log is not ahead of it")


async def integrity(database: Database, settings: Settings) -> Finding:
    """Whether the tree fits its head and the last checkpoint; `calltrail verify` reads the events as well."""
    keys = [Ed25519Verifier(key) for key in read_public(settings.data_dir / PUBLIC_FILE)]
    with database_errors():
        async with (
            database.pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            size, tree = await connection.fetchrow(log_sql.HEAD_TREE) or (0, b"")
            kept = await connection.fetchrow(
                "SELECT note, signed_at FROM log_checkpoint ORDER BY size DESC, signed_at DESC LIMIT 1"
            )
            try:
                [root] = await plan_hashes(connection, root_plan(size))
                whole = root == Frontier(size, tree).root()
                signed = None
                if kept is not None and keys:
                    signed = verify_checkpoint(Note.decode(kept["note"].encode()), keys[-1].key.name, keys)
                    [before] = await plan_hashes(connection, root_plan(signed.size))
                    whole = whole and before == signed.root
            except (TlogError, CalltrailError) as error:
                return Finding("integrity", "broken", str(error), "calltrail verify says where")
    if not whole:
        said = "the tree is not what its head or the last checkpoint says"
        return Finding("integrity", "broken", said, "calltrail verify says where")
    if kept is None or signed is None:
        return Finding("integrity", "look", f"{size:,} events, no signed checkpoint", "calltrail checkpoint")
    said = f"{size:,} events, the last checkpoint covers {signed.size:,}"
    if size > signed.size and datetime.now(UTC) - kept["signed_at"] > CHECKPOINT_AGE:
        return Finding("integrity", "look", said, "calltrail checkpoint, or let calltrail serve run")
    return Finding("integrity", "ok", said)


async def sessions(database: Database) -> Finding:
    """Whether every agent is recorded."""
    rows = await list_sessions(database, None)
    unwell = [row for row in rows if row["status"] not in WELL]
    if not unwell:
        return Finding(
            "sessions", "ok", f"{len(rows)} agents, all recorded" if rows else "no agent is recorded"
        )
    named = "; ".join(
        f"{row['agent']} {row['status']}" + (f": {row['reason']}" if row["reason"] else "")
        for row in unwell[:MOST_NAMED]
    )
    more = f"; and {len(unwell) - MOST_NAMED} more" if len(unwell) > MOST_NAMED else ""
    said = f"{len(unwell)} of {len(rows)} agents are not recorded: {named}{more}"
    return Finding("sessions", "look", said, "calltrail sessions; is calltrail serve running?")


async def doubts(database: Database) -> Finding:
    """Transfers that wait for a person."""
    open_ones = await Queries(database).transfers(outcome="in_doubt", limit=1_000)
    if not open_ones:
        return Finding("transfers", "ok", "none in doubt")
    return Finding("transfers", "look", f"{len(open_ones)} in doubt", "calltrail transfers --in-doubt")


async def projections(database: Database, log: EventLog) -> Finding:
    """Whether the views have come to the log's end, and have digested everything on the way."""
    engine = Engine(database, log, catalogue())
    rows = await engine.status()
    unkept = engine.projections.keys() - {row["name"] for row in rows}
    if unkept:
        remedy = "Start calltrail serve; one that runs may be older than the schema: start it anew"
        return Finding("projections", "look", f"nobody keeps {', '.join(sorted(unkept))}", remedy)
    aside = sum(len(row["set_aside_events"]) for row in rows)
    if aside:
        named = ", ".join(row["name"] for row in rows if row["set_aside_events"])
        said = f"{aside} events could not be digested by {named}"
        return Finding(
            "projections", "broken", said, "calltrail projections; then calltrail rebuild --set-aside"
        )
    behind = slowest(rows)
    if behind:
        return Finding("projections", "look", f"behind: {behind}", "Is calltrail serve running?")
    return Finding("projections", "ok", f"{len(rows)} views, all at the log's end")


def slowest(rows: Sequence[dict[str, object]]) -> str:
    """The views that lag by more than they may, in words."""
    late = [row for row in rows if float(str(row["lag_seconds"] or 0)) > MOST_LAG_S]
    return ", ".join(f"{row['name']} by {row['lag_events']} events" for row in late)
