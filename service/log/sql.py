"""Every statement of the log, by name."""

from __future__ import annotations

LOCK_HEAD = """
SELECT next_position, recorded_at, clock_timestamp() AS now FROM log_head FOR UPDATE
"""
"""Takes the lock under which positions are given out; held until the transaction ends."""

FIND_IDS = """
SELECT event_id, position, stream, kind, codec, payload, salt IS NULL AS redacted
FROM event_log WHERE event_id = ANY($1::uuid[])
"""
"""The events among these ids that are in the log already. Complete under the head's lock."""

FIND_BEYOND = """
SELECT c.stream, c.after, (
    SELECT e.position FROM event_log e
    WHERE e.stream = c.stream AND e.position > c.after ORDER BY e.position DESC LIMIT 1
) AS found
FROM unnest($1::text[], $2::bigint[]) AS c (stream, after)
"""
"""For each condition the newest event that breaks it, or null. Complete under the head's lock."""

ENSURE_PARTITION = "SELECT event_log_ensure_partition($1)"

MOVE_HEAD = """
WITH moved AS (UPDATE log_head SET next_position = $1, recorded_at = $2)
SELECT pg_notify('event_log', $1::text)
"""
"""Publishes the new head: visible, and told to listeners, when the transaction commits."""

HEAD = "SELECT next_position FROM log_head"

COLUMNS = ("position", "recorded_at", "event_id", "codec", "stream", "kind", "salt", "commitment", "payload")
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM event_log"  # noqa: S608 constants

READ = f"{_SELECT} WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3"
"""The next page of the log after a position, up to another."""

READ_KINDS = f"""
{_SELECT} WHERE position > $1 AND position <= $2 AND kind = ANY($4::text[]) ORDER BY position LIMIT $3
"""

READ_SHARE = f"""
{_SELECT} WHERE position > $1 AND position <= $2 AND (
    split_part(stream, '-', 1) <> ALL($4::text[])
    OR ('x' || substr(md5(substr(stream, strpos(stream, '-') + 1)), 1, 7))::bit(28)::int % $6 = $5
) ORDER BY position LIMIT $3
"""
"""The next page of one share of the log (see `EventLog.read_share`)."""

READ_STREAM = f"""
{_SELECT} WHERE stream = $4 AND position > $1 AND position <= $2 ORDER BY position LIMIT $3
"""
"""The next page of one stream, by its index."""

READ_STREAM_BACKWARDS = f"{_SELECT} WHERE stream = $1 ORDER BY position DESC LIMIT $2"

READ_POSITIONS = f"{_SELECT} WHERE position = ANY($1::bigint[]) ORDER BY position"

POSITION_AT = "SELECT event_log_position_at($1)"
