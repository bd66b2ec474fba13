"""The statements of an append in its one round trip."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0013"
down_revision = "0012"

# `event_log_append` of 0011, with the statements that go with the events.
HEAD = """
DROP FUNCTION event_log_append;
-- Writes events at the end of the log, if that is where and how the caller takes it to be and the conditions
-- hold; else nothing. `moment` becomes recorded_at: not before the last event's, and not ahead of the clock,
-- unless that was set back.
CREATE FUNCTION event_log_append(
    first_position bigint, tree_before bytea, tree_after bytea, moment timestamptz,
    event_ids uuid[], codecs smallint[], streams text[], kinds text[],
    salts bytea[], commitments bytea[], payloads bytea[],
    tile_levels smallint[], tile_indexes bigint[], tile_roots bytea[], tile_hashes bytea[],
    condition_streams text[], condition_afters bigint[],
"""
PARAMETERS = "also_statements text[], also_rows jsonb[],"
BODY = """
    OUT written boolean, OUT codec_in_use smallint, OUT now timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    head log_head;
    next CONSTANT bigint := first_position + cardinality(event_ids);
BEGIN
    SELECT * INTO STRICT head FROM log_head FOR UPDATE;
    codec_in_use := head.codec;
    now := clock_timestamp();
    written := head.next_position = first_position AND head.tree = tree_before
        AND moment BETWEEN head.recorded_at AND greatest(head.recorded_at, now)
        AND (cardinality(condition_streams) = 0 OR NOT EXISTS (
            SELECT FROM unnest(condition_streams, condition_afters) AS c (stream, after)
            WHERE EXISTS (SELECT FROM event_log e WHERE e.stream = c.stream AND e.position > c.after)));
    IF NOT written THEN
        RETURN;
    END IF;
    INSERT INTO event_log
        (position, recorded_at, event_id, codec, stream, kind, salt, commitment, payload)
    SELECT first_position + n - 1, moment, event_id, codec, stream, kind, salt, commitment, payload
    FROM unnest(event_ids, codecs, streams, kinds, salts, commitments, payloads) WITH ORDINALITY
        AS new (event_id, codec, stream, kind, salt, commitment, payload, n);
    IF cardinality(tile_levels) > 0 THEN
        INSERT INTO log_tile (level, index, root, hashes)
        SELECT * FROM unnest(tile_levels, tile_indexes, tile_roots, tile_hashes);
    END IF;
    UPDATE log_head SET next_position = next, recorded_at = moment, tree = tree_after;
"""
STATEMENTS = """
    FOR n IN 1 .. cardinality(also_statements) LOOP
        EXECUTE also_statements[n] USING also_rows[n];
    END LOOP;
"""
END = """
    PERFORM pg_notify('event_log', next::text);
END $$;
"""


def upgrade() -> None:
    run_script(op.get_bind(), HEAD + PARAMETERS + BODY + STATEMENTS + END)


def downgrade() -> None:
    run_script(op.get_bind(), HEAD + BODY + END)
