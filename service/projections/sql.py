"""The engine's statements about its own bookkeeping, by name."""

from __future__ import annotations

READ = """
SELECT position, recorded_at, codec, stream, kind, payload FROM event_log
WHERE position > $1 AND position <= $2 ORDER BY position
"""
READ_STREAMS = """
SELECT position, recorded_at, codec, stream, kind, payload FROM event_log
WHERE stream = ANY($1::text[]) AND position <= $2 AND position <> ALL (
    SELECT s.position FROM projection_set_aside s WHERE s.name = $3 AND s.generation = $4
) ORDER BY position
"""
"""What a generation has folded of some streams."""
SHARE_OF = "get_byte(decode(md5(substr(stream, {})), 'hex'), 0) % $4"
READ_SHARE = f"""
SELECT position, recorded_at, codec, stream, kind, payload FROM event_log
WHERE position > $1 AND position <= $2 AND CASE
    WHEN stream LIKE 'call-%' THEN {SHARE_OF.format(len("call-x"))} = $3
    WHEN stream LIKE 'transfer-%' THEN {SHARE_OF.format(len("transfer-x"))} = $3
    ELSE true END
ORDER BY position
"""  # noqa: S608 constants
"""What share $3 of $4 has: the same arithmetic as `reading.Share.has`."""

LIVE = "SELECT name, generation, position FROM projection WHERE live AND name = ANY($1::text[])"
LOCK_LIVE = f"{LIVE} ORDER BY name FOR UPDATE"
"""The live generations; nobody else folds into them or swaps them until the transaction ends."""

ENTER_FIRST = """
INSERT INTO projection (name, generation, live) SELECT $1, 1, true
WHERE NOT EXISTS (SELECT 1 FROM projection WHERE name = $1)
ON CONFLICT DO NOTHING RETURNING generation
"""
"""The first generation of a projection that is new; no row if it is not."""

ENTER_NEXT = """
INSERT INTO projection (name, generation)
SELECT $1, coalesce(max(generation), 0) + 1 FROM projection WHERE name = $1
RETURNING generation
"""

POSITION = "SELECT position FROM projection WHERE name = $1 AND generation = $2"

MOVE = """
UPDATE projection SET position = $3, updated_at = clock_timestamp() WHERE name = $1 AND generation = $2
"""

BEAT = "UPDATE projection SET beat_at = clock_timestamp() WHERE live AND name = $1"

SWAP_OUT = "UPDATE projection SET live = false WHERE name = $1 AND live"
SWAP_IN = "UPDATE projection SET live = true WHERE name = $1 AND generation = $2"
"""In this order: an index allows one live generation."""

SET_ASIDE = """
INSERT INTO projection_set_aside (name, generation, position, reason) VALUES ($1, $2, $3, $4)
ON CONFLICT (name, generation, position) DO UPDATE SET reason = excluded.reason
"""

FORGET = "DELETE FROM projection WHERE name = $1 AND generation = $2 AND NOT live"
FORGET_SET_ASIDE = "DELETE FROM projection_set_aside WHERE name = $1 AND generation = $2"

FORGET_ASIDE_AT = """
DELETE FROM projection_set_aside WHERE name = $1 AND generation = $2 AND position = ANY($3::bigint[])
"""

GENERATIONS = "SELECT generation FROM projection WHERE name = $1 AND NOT live ORDER BY generation"

STATUS = """
SELECT p.name, p.generation, p.position, p.updated_at, p.beat_at,
       h.next_position - 1 - p.position AS lag_events,
       coalesce(extract(epoch FROM clock_timestamp() - e.recorded_at), 0)::float8 AS lag_seconds,
       (SELECT count(*) FROM projection_set_aside s
        WHERE s.name = p.name AND s.generation = p.generation) AS set_aside
FROM projection p CROSS JOIN log_head h LEFT JOIN event_log e ON e.position = p.position + 1
WHERE p.live ORDER BY p.name
"""
"""How far each live projection has come; its lag is the age of the first event that it has not folded."""

SET_ASIDE_EVENTS = """
SELECT s.name, s.position, s.reason, s.at FROM projection_set_aside s
JOIN projection p ON p.name = s.name AND p.generation = s.generation AND p.live
ORDER BY s.name, s.position LIMIT $1
"""

# Rebuilding

UNFINISHED = """
SELECT id, share, shares, upto, generations, position FROM projection_rebuild
WHERE id = (SELECT id FROM projection_rebuild WHERE what = $1 ORDER BY started_at DESC LIMIT 1)
ORDER BY share
"""
BEGIN_SHARE = """
INSERT INTO projection_rebuild (id, share, shares, upto, what, generations) VALUES ($1, $2, $3, $4, $5, $6)
"""
MOVE_SHARE = "UPDATE projection_rebuild SET position = $3 WHERE id = $1 AND share = $2"
END_REBUILD = "DELETE FROM projection_rebuild WHERE id = $1"
FORGET_REBUILDS = "DELETE FROM projection_rebuild WHERE generations ?| $1::text[]"
"""Rebuilds that were cut off and can be taken up no more, for these projections' generations are deleted."""

LIVE_GENERATION = "(SELECT generation FROM projection WHERE name = '{}' AND live)"


def live_generation(name: str) -> str:
    """SQL for the generation of `name` that readers see."""
    return LIVE_GENERATION.format(name)
