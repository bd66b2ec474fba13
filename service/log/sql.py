"""Every statement of the log, by name."""

from __future__ import annotations

LOCK_HEAD = """
SELECT next_position, recorded_at, tree, codec, clock_timestamp() AS now FROM log_head FOR UPDATE
"""
"""Takes the lock under which positions are given out; held until the transaction ends."""

APPEND = f"""
SELECT written, codec_in_use, now FROM event_log_append({", ".join(f"${n}" for n in range(1, 20))})
"""  # noqa: S608 numbers
"""See the function: all that is to be done for a batch, in one statement."""

FIND_IDS = """
SELECT event_id, position, stream, kind, codec, payload, salt IS NULL AS redacted
FROM event_log WHERE event_id = ANY($1::uuid[]) AND position >= $2 AND position < $3
"""
"""The events among these ids that are in a range of the log. Complete under the head's lock."""

FIND_BEYOND = """
SELECT c.stream, c.after, (
    SELECT e.position FROM event_log e
    WHERE e.stream = c.stream AND e.position > c.after ORDER BY e.position DESC LIMIT 1
) AS found
FROM unnest($1::text[], $2::bigint[]) AS c (stream, after)
"""
"""For each condition the newest event that breaks it, or null. Complete under the head's lock."""

ENSURE_PARTITION = "SELECT event_log_ensure_partition($1), event_log_partition_size()"

OLDER_PARTITIONS = "SELECT first_position, highest_id FROM event_log_older_partitions($1)"

CODECS = "SELECT codec, dictionary FROM log_codec WHERE codec <> ALL($1::smallint[]) ORDER BY codec"

COLUMNS = ("position", "recorded_at", "event_id", "codec", "stream", "kind", "salt", "commitment", "payload")

CODEC_IN_USE = "SELECT codec FROM log_head"

HEAD = "SELECT next_position FROM log_head"

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM event_log"  # noqa: S608 constants

READ = f"{_SELECT} WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3"
"""The next page of the log after a position, up to another."""

READ_KINDS = f"""
{_SELECT} WHERE position > $1 AND position <= $2 AND kind = ANY($4::text[]) ORDER BY position LIMIT $3
"""

READ_OTHERS = f"""
{_SELECT} WHERE position > $1 AND split_part(stream, '-', 1) <> ALL($3::text[]) ORDER BY position LIMIT $2
"""

READ_STREAM = f"""
{_SELECT} WHERE stream = $4 AND position > $1 AND position <= $2 ORDER BY position LIMIT $3
"""
"""The next page of one stream, by its index."""

READ_STREAM_BACKWARDS = f"{_SELECT} WHERE stream = $1 ORDER BY position DESC LIMIT $2"

READ_POSITIONS = f"{_SELECT} WHERE position = ANY($1::bigint[]) ORDER BY position"

POSITION_AT = "SELECT event_log_position_at($1)"

READ_ENTRIES = """
SELECT position, recorded_at, event_id, stream, kind, commitment FROM event_log
WHERE position >= $1 AND position < $2 ORDER BY position
"""
"""What the leaves of a range are made of."""

TILE_ROOTS = "SELECT root FROM log_tile WHERE level = $1 AND index >= $2 AND index < $3 ORDER BY index"

TILE = "SELECT hashes FROM log_tile WHERE level = $1 AND index = $2"

HEAD_TREE = "SELECT next_position, tree FROM log_head"

TILES = "SELECT level, index, root, hashes FROM log_tile WHERE level = $1 AND index >= $2 AND index < $3"

TILE_COUNTS = """
SELECT level, count(*) FILTER (WHERE reach <= $1) AS count,
    count(*) FILTER (WHERE reach > next_position) AS beyond
FROM (SELECT level, (index + 1) * 256 ^ (level + 1) AS reach FROM log_tile) AS tile, log_head
GROUP BY level ORDER BY level
"""
"""How many tiles the first $1 events have, and how many there are of events that the head does not know of.

In one statement, so that a log that grows meanwhile fits its head.
"""

HEAD_AND_BEYOND = """
SELECT next_position, tree, (
    SELECT array_agg(position) FROM (
        SELECT position FROM event_log WHERE position >= next_position OR position < 0
        ORDER BY position LIMIT 10
    ) AS beyond
) AS beyond
FROM log_head
"""
"""The head, and positions that it does not know of, as of one moment."""

KEPT_CHECKPOINTS = "SELECT size, root, note FROM log_checkpoint ORDER BY size, signed_at"

LAST_CHECKPOINT = "SELECT note FROM log_checkpoint ORDER BY size DESC, signed_at DESC LIMIT 1"

KEEP_CHECKPOINT = "INSERT INTO log_checkpoint (size, root, note) VALUES ($1, $2, $3)"

USE_NEW_CODEC = """
WITH added AS (
    INSERT INTO log_codec (codec, dictionary, samples) SELECT max(codec) + 1, $1, $2 FROM log_codec
    RETURNING codec
)
UPDATE log_head SET codec = added.codec FROM added RETURNING log_head.codec
"""

REDACT = """
SELECT event_log_redact(position, decode(payload, 'base64'))
FROM jsonb_to_recordset($1) AS redacted (position bigint, payload text)
"""
