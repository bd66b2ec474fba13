"""The statement behind each question. All read `analytics.fact_transfer` or `analytics.fact_call`."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from service.analytics.filters import UNKNOWN, TransferFilter, dimension
from service.analytics.statement import Arguments, Statement
from service.errors import BadInput

Bucket = Literal["hour", "day", "week", "month"]

BUCKETS: dict[str, str] = {
    "hour": "{0}_date + {0}_hour * interval '1 hour'",
    "day": "{0}_date::timestamp",
    "week": "date_trunc('week', {0}_date::timestamp)",
    "month": "date_trunc('month', {0}_date::timestamp)",
}
"""SQL for the beginning of a bucket, in the site's time zone, from columns `…_date` and `…_hour`."""

SECONDS = {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000}
MOST_BUCKETS = 5_000
MOST_VALUES = 1_000

EDGES_S: tuple[float, ...] = (0, 15, 30, 60, 120, 180, 300, 600, 1_200, 1_800, 3_600)
"""Where the bins of the histogram of talk times begin, in seconds."""

TIMES = frozenset({"since", "until"})


def count_transfers(wanted: TransferFilter, *, by: str, top: int) -> Statement:
    arguments = Arguments()
    value, where = dimension(by, arguments), wanted.condition(arguments)
    return Statement(
        f"""
WITH counted AS (
    SELECT {value} AS value, count(*) AS transfers, count(*) FILTER (WHERE t.is_carried_out) AS carried_out
    FROM analytics.fact_transfer t WHERE {where} GROUP BY 1
), ranked AS (SELECT *, row_number() OVER (ORDER BY transfers DESC, value) AS place FROM counted)
SELECT CASE WHEN place <= {limited(top)} THEN value END AS value,
       sum(transfers)::bigint AS transfers, sum(carried_out)::bigint AS carried_out
FROM ranked GROUP BY 1 ORDER BY min(place)
""",  # noqa: S608 names are ours, values are arguments
        tuple(arguments.values),
    )


def transfers_over_time(wanted: TransferFilter, *, by: str, bucket: Bucket, top: int) -> Statement:
    check_length(wanted, bucket)
    arguments = Arguments()
    value, where = dimension(by, arguments), wanted.condition(arguments)
    return Statement(
        f"""
WITH counted AS (
    SELECT {begins(bucket, "t.requested")} AS begins, {value} AS value, count(*) AS transfers,
           count(*) FILTER (WHERE t.is_carried_out) AS carried_out
    FROM analytics.fact_transfer t WHERE {where} GROUP BY 1, 2
), told AS (
    SELECT value FROM counted GROUP BY value ORDER BY sum(transfers) DESC, value LIMIT {limited(top)}
)
SELECT begins, told.value, sum(transfers)::bigint AS transfers, sum(carried_out)::bigint AS carried_out
FROM counted LEFT JOIN told USING (value) GROUP BY 1, 2 ORDER BY 1, 2 NULLS LAST
""",  # noqa: S608 names are ours, values are arguments
        tuple(arguments.values),
    )


def transfer_rate(wanted: TransferFilter, *, bucket: Bucket | None) -> Statement:
    if bucket is not None:
        check_length(wanted, bucket)
    arguments = Arguments()
    transfers = transfers_by_call(wanted, arguments)
    calls = ["c.is_handled"]
    if wanted.since is not None:
        calls.append(f"c.started_at >= {arguments.add(wanted.since)}")
    if wanted.until is not None:
        calls.append(f"c.started_at < {arguments.add(wanted.until)}")
    if wanted.agent is not None:
        calls.append(f"c.agent_ids @> ARRAY[{arguments.add(wanted.agent)}]::text[]")
    begin, group = (
        ("NULL::timestamp", "") if bucket is None else (begins(bucket, "c.started"), "GROUP BY 1 ORDER BY 1")
    )
    return Statement(
        f"""
SELECT {begin} AS begins, count(*) AS calls, count(*) FILTER (WHERE x.transfers > 0) AS transferred_calls,
       coalesce(sum(x.transfers), 0)::bigint AS transfers
FROM analytics.fact_call c {transfers}
WHERE {" AND ".join(calls)} {group}
""",  # noqa: S608 names are ours, values are arguments
        tuple(arguments.values),
    )


def transfers_by_call(wanted: TransferFilter, arguments: Arguments) -> str:
    """SQL that joins to each call `c` its `x.transfers` that count; a call knows how many it has in all."""
    if all(name in TIMES for name, _ in wanted.given()):
        return "CROSS JOIN LATERAL (SELECT c.transfers) AS x"
    where = "t.is_carried_out AND " + wanted.condition(arguments, but=TIMES)
    if wanted.since is not None:
        where += f" AND t.requested_at >= {arguments.add(wanted.since)}"
    return f"""LEFT JOIN (
    SELECT t.call_id, count(*) AS transfers FROM analytics.fact_transfer t WHERE {where} GROUP BY 1
) AS x USING (call_id)"""  # noqa: S608 names are ours, values are arguments


def talk_before_transfer(wanted: TransferFilter, *, by: str | None, top: int) -> Statement:
    arguments = Arguments()
    value = "NULL::text" if by is None else dimension(by, arguments)
    where = wanted.condition(arguments)
    bins = ", ".join(f"count(*) FILTER (WHERE bin = {place})" for place in range(1, len(EDGES_S) + 1))
    return Statement(
        f"""
SELECT value, count(*) AS transfers,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS median_s,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds) AS p90_s,
       ARRAY[{bins}] AS bins
FROM (
    SELECT {value} AS value, t.talk_seconds_before AS seconds,
           width_bucket(t.talk_seconds_before, ARRAY[{", ".join(map(str, EDGES_S))}]::float8[]) AS bin
    FROM analytics.fact_transfer t WHERE t.talk_seconds_before IS NOT NULL AND {where}
) AS talks
GROUP BY value ORDER BY transfers DESC, value LIMIT {limited(top)}
""",  # noqa: S608 names are ours, values are arguments
        tuple(arguments.values),
    )


def chains(wanted: TransferFilter) -> Statement:
    arguments = Arguments()
    where = wanted.condition(arguments)
    return Statement(
        f"""
SELECT t.chain_length AS length, count(DISTINCT t.call_id) AS calls, count(*) AS transfers,
       count(DISTINCT t.call_id) FILTER (WHERE t.is_ping_pong) AS ping_pong_calls,
       count(*) FILTER (WHERE t.is_ping_pong) AS ping_pong_transfers
FROM analytics.fact_transfer t WHERE t.is_carried_out AND {where} GROUP BY 1 ORDER BY 1
""",  # noqa: S608 names are ours, values are arguments
        tuple(arguments.values),
    )


def pairs(wanted: TransferFilter, *, limit: int) -> Statement:
    arguments = Arguments()
    where = wanted.condition(arguments)
    return Statement(
        f"""
SELECT coalesce(t.agent_id, '{UNKNOWN}') AS agent, coalesce(t.destination, '{UNKNOWN}') AS destination,
       count(*) AS transfers, count(*) FILTER (WHERE t.is_carried_out) AS carried_out
FROM analytics.fact_transfer t WHERE {where}
GROUP BY 1, 2 ORDER BY transfers DESC, 1, 2 LIMIT {limited(limit)}
""",  # noqa: S608 names are ours, values are arguments
        tuple(arguments.values),
    )


def hour_of_week(wanted: TransferFilter) -> Statement:
    arguments = Arguments()
    where = wanted.condition(arguments)
    return Statement(
        f"""
SELECT t.weekday, t.requested_hour AS hour, count(*) AS transfers
FROM analytics.fact_transfer t WHERE {where} GROUP BY 1, 2 ORDER BY 1, 2
""",  # noqa: S608 names are ours, values are arguments
        tuple(arguments.values),
    )


def data_quality(wanted: TransferFilter) -> Statement:
    arguments = Arguments()
    where = wanted.condition(arguments)
    return Statement(
        f"""
SELECT count(*) AS transfers, count(*) FILTER (WHERE t.reason_source IS NOT NULL) AS with_reason,
       count(*) FILTER (WHERE t.reason_source IS NOT NULL AND NOT t.is_reason_mapped) AS unmapped_reason,
       count(*) FILTER (WHERE t.has_gap) AS with_gap,
       count(*) FILTER (WHERE t.outcome = 'in_doubt') AS in_doubt,
       count(*) FILTER (WHERE t.destination IS NULL) AS without_destination
FROM analytics.fact_transfer t WHERE {where}
""",  # noqa: S608 names are ours, values are arguments
        tuple(arguments.values),
    )


def freshness() -> Statement:
    return Statement("SELECT position, head, lag_events, lag_seconds FROM analytics.freshness")


def reasons_known(*, limit: int) -> Statement:
    """From each reason to the next, by their index: a list to choose from must not count a million rows."""
    return Statement(
        f"""
WITH RECURSIVE known AS (
    (SELECT t.reason FROM analytics.fact_transfer t ORDER BY t.reason LIMIT 1)
    UNION ALL
    SELECT (SELECT t.reason FROM analytics.fact_transfer t WHERE t.reason > k.reason
            ORDER BY t.reason LIMIT 1)
    FROM known k WHERE k.reason IS NOT NULL
)
SELECT reason FROM known WHERE reason IS NOT NULL LIMIT {limited(limit)}
"""  # noqa: S608 a number
    )


def begins(bucket: str, columns: str) -> str:
    """SQL for the beginning of a bucket.

    Raises:
        BadInput: there is no such bucket.

    """
    if bucket not in BUCKETS:
        raise BadInput("bucket", f"is {bucket[:40]!r}", f"Write one of {', '.join(BUCKETS)}")
    return BUCKETS[bucket].format(columns)


def check_length(wanted: TransferFilter, bucket: str) -> None:
    """Refuse a time that would be cut into more buckets than anybody can look at."""
    if wanted.since is None or wanted.until is None or bucket not in SECONDS:
        return
    length = wanted.until - wanted.since
    if length > timedelta(seconds=SECONDS[bucket] * MOST_BUCKETS):
        buckets = length // timedelta(seconds=SECONDS[bucket])
        raise BadInput(
            "bucket", f"{bucket} would make {buckets} buckets", "Take a larger one, or a shorter time"
        )


def limited(number: int) -> int:
    """A number of values that may be asked for."""
    if not 1 <= number <= MOST_VALUES:
        raise BadInput("top", f"is {number}", f"Write 1 to {MOST_VALUES}")
    return int(number)
