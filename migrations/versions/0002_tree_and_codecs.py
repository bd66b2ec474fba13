"""The Merkle tree's tiles, dictionaries for payloads, signed checkpoints, and redaction."""

from __future__ import annotations

from alembic import op

from service.log.codec import first_dictionary
from service.postgres.schema import run_script

revision = "0002"
down_revision = "0001"

CODECS = """
CREATE TABLE log_codec (
    codec      smallint    NOT NULL PRIMARY KEY CHECK (codec > 0),
    dictionary bytea       NOT NULL,
    trained_at timestamptz NOT NULL DEFAULT now(),
    samples    integer     NOT NULL
);
ALTER TABLE log_codec ALTER COLUMN dictionary SET STORAGE EXTERNAL;
COMMENT ON TABLE log_codec IS 'zstd dictionaries; kept for ever, stored payloads cannot be read without';
COMMENT ON COLUMN event_log.codec IS '0 = as is, n = zstd with dictionary n of log_codec';
ALTER TABLE log_head ADD COLUMN codec smallint NOT NULL DEFAULT 1;
COMMENT ON COLUMN log_head.codec IS 'What new payloads are stored with';
"""

TREE = """
CREATE TABLE log_tile (
    level  smallint NOT NULL,
    index  bigint   NOT NULL,
    root   bytea    NOT NULL,
    hashes bytea    NOT NULL,
    PRIMARY KEY (level, index)
);
ALTER TABLE log_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE log_tile IS 'Full tiles of the Merkle tree (C2SP tlog-tiles): 256 hashes each';
COMMENT ON COLUMN log_tile.root IS 'The tile''s root: one hash of the tile above it';
COMMENT ON COLUMN log_head.tree IS 'The roots of the complete subtrees (RFC 6962), 32 bytes each';

CREATE TABLE log_checkpoint (
    size      bigint      NOT NULL,
    signed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    root      bytea       NOT NULL,
    note      text        NOT NULL,
    PRIMARY KEY (size, signed_at)
);
COMMENT ON TABLE log_checkpoint IS 'Every checkpoint signed (C2SP), kept before it is shown';
"""

APPEND_ONLY = """
CREATE FUNCTION log_kept_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON log_codec
    FOR EACH STATEMENT EXECUTE FUNCTION log_kept_refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON log_tile
    FOR EACH STATEMENT EXECUTE FUNCTION log_kept_refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON log_checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION log_kept_refuse_change();
"""

PARTITIONS = """
-- How many positions a partition takes. A function of its own, so that it stands in one place; it never
-- changes once the log has begun.
CREATE FUNCTION event_log_partition_size() RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 4194304::bigint';

-- Makes the partition that takes `wanted` if it is missing, and returns the position at which it ends.
-- Called under the lock of log_head, by a role that need not own the log.
CREATE OR REPLACE FUNCTION event_log_ensure_partition(wanted bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    size  CONSTANT bigint := event_log_partition_size();
    first CONSTANT bigint := wanted / size * size;
    name  CONSTANT text   := 'event_log_' || lpad((first / size)::text, 6, '0');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN first + size;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE event_log INCLUDING ALL)', name);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (event_id)', name || '_event_id', name);
    EXECUTE format('CREATE INDEX %I ON %I (stream, position)', name || '_stream', name);
    EXECUTE format('CREATE TRIGGER event_log_refuse_truncate BEFORE TRUNCATE ON %I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION event_log_refuse_change()', name);
    EXECUTE format('ALTER TABLE event_log ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                   name, first, first + size);
    RETURN first + size;
END $$;

-- For each partition before the one that ends at `partition_end`: where it begins, and its highest event id.
-- An id above the highest is not in it, so that most ids need not be looked for there.
CREATE FUNCTION event_log_older_partitions(partition_end bigint)
RETURNS TABLE (first_position bigint, highest_id uuid) LANGUAGE plpgsql STABLE AS $$
DECLARE
    size CONSTANT bigint := event_log_partition_size();
BEGIN
    FOR first_position IN SELECT generate_series(0, partition_end - 2 * size, size) LOOP
        IF to_regclass('event_log_' || lpad((first_position / size)::text, 6, '0')) IS NOT NULL THEN
            EXECUTE format('SELECT event_id FROM %I ORDER BY event_id DESC LIMIT 1',
                           'event_log_' || lpad((first_position / size)::text, 6, '0')) INTO highest_id;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
"""

REDACTION = """
-- The one change that is let through: another payload and no salt, by event_log_redact.
CREATE OR REPLACE FUNCTION event_log_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('calltrail.redacting', true) = 'on' THEN
        IF NEW.salt IS NULL
        AND (NEW.position, NEW.recorded_at, NEW.event_id, NEW.stream, NEW.kind, NEW.commitment)
            = (OLD.position, OLD.recorded_at, OLD.event_id, OLD.stream, OLD.kind, OLD.commitment) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'event_log is append-only: % refused', TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- Replaces an event's payload by one with personal data blanked, and destroys its salt. The caller appends a
-- PayloadRedacted in the same transaction; without it the verifier takes the change for a forgery.
CREATE FUNCTION event_log_redact(redacted bigint, new_payload bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM set_config('calltrail.redacting', 'on', true);
    UPDATE event_log SET payload = new_payload, codec = 0, salt = NULL WHERE position = redacted;
    PERFORM set_config('calltrail.redacting', 'off', true);
END $$;
REVOKE ALL ON FUNCTION event_log_redact FROM PUBLIC;
"""


def upgrade() -> None:
    for part in (CODECS, TREE, APPEND_ONLY, PARTITIONS, REDACTION):
        run_script(op.get_bind(), part)
    dictionary = first_dictionary().hex()
    run_script(
        op.get_bind(),
        f"INSERT INTO log_codec (codec, dictionary, samples) VALUES (1, '\\x{dictionary}', 0)",  # noqa: S608 hex
    )


def downgrade() -> None:
    raise NotImplementedError("stored payloads cannot be read without their dictionaries")
