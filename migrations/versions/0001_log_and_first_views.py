"""The event log, the work in progress, and the first projections."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0001"
down_revision = None

LOG = """
CREATE TABLE event_log (
    position    bigint      NOT NULL PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    event_id    uuid        NOT NULL,
    codec       smallint    NOT NULL,
    stream      text        NOT NULL,
    kind        text        NOT NULL,
    salt        bytea,
    commitment  bytea       NOT NULL,
    payload     bytea       NOT NULL
) PARTITION BY RANGE (position);
COMMENT ON TABLE event_log IS 'Everything that happened, in one total order, never changed';
COMMENT ON COLUMN event_log.position IS 'From 0, without holes, in the order of commit';
COMMENT ON COLUMN event_log.recorded_at IS 'When appended, by the database''s clock; never goes back';
COMMENT ON COLUMN event_log.codec IS 'How payload is stored: 0 = as is';
COMMENT ON COLUMN event_log.salt IS '16 random bytes; null once the payload is redacted';
COMMENT ON COLUMN event_log.commitment IS 'SHA-256(salt || payload as it was appended)';
-- Payloads are compressed before they come here, or too small to gain.
ALTER TABLE event_log ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE TABLE log_head (
    singleton     boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (singleton),
    next_position bigint      NOT NULL DEFAULT 0,
    recorded_at   timestamptz NOT NULL DEFAULT 'epoch',
    tree          bytea       NOT NULL DEFAULT ''
) WITH (fillfactor = 10);
COMMENT ON TABLE log_head IS 'One row, locked by every append: it hands out the positions';
COMMENT ON COLUMN log_head.tree IS 'The right edge of the Merkle tree over the entries';
INSERT INTO log_head DEFAULT VALUES;

CREATE FUNCTION event_log_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'event_log is append-only: % refused', TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER event_log_refuse_change BEFORE UPDATE OR DELETE ON event_log
    FOR EACH ROW EXECUTE FUNCTION event_log_refuse_change();
CREATE TRIGGER event_log_refuse_truncate BEFORE TRUNCATE ON event_log
    FOR EACH STATEMENT EXECUTE FUNCTION event_log_refuse_change();

-- Makes the partition that takes `wanted` if it is missing, and returns the position at which it ends.
-- Called under the lock of log_head.
-- An event's id is unique within its partition by index, and across partitions by the append.
CREATE FUNCTION event_log_ensure_partition(wanted bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    size  CONSTANT bigint := 4194304;
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
SELECT event_log_ensure_partition(0);

-- The last position recorded at or before `moment`, -1 if there is none: recorded_at never goes back as
-- position grows, so some twenty look-ups by primary key find it and no index on time is needed.
CREATE FUNCTION event_log_position_at(moment timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low    bigint := -1;
    high   bigint;
    middle bigint;
BEGIN
    SELECT next_position INTO high FROM log_head;
    WHILE high - low > 1 LOOP
        middle := (low + high) / 2;
        IF (SELECT recorded_at FROM event_log WHERE position = middle) <= moment THEN
            low := middle;
        ELSE
            high := middle;
        END IF;
    END LOOP;
    RETURN low;
END $$;
"""

TRANSFERS = """
CREATE TABLE transfer_work (
    transfer_id         uuid        NOT NULL PRIMARY KEY,
    call_id             text        NOT NULL,
    agent               text        NOT NULL,
    state               text        NOT NULL,
    dispatched_position bigint      NOT NULL,
    due_at              timestamptz NOT NULL
);
CREATE INDEX transfer_work_due ON transfer_work (due_at);
COMMENT ON TABLE transfer_work IS 'Transfers without a final outcome; kept in the transaction of each event';
COMMENT ON COLUMN transfer_work.due_at IS 'When to look again if no evidence has come by then';
"""

MESSAGING = """
CREATE TABLE relay_cursor (
    name     text   NOT NULL PRIMARY KEY,
    position bigint NOT NULL
);
COMMENT ON TABLE relay_cursor IS 'The last position that each relay has handed to its broker';
"""

PROJECTIONS = """
CREATE TABLE projection (
    name       text        NOT NULL,
    generation integer     NOT NULL,
    position   bigint      NOT NULL DEFAULT -1,
    live       boolean     NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, generation)
);
CREATE UNIQUE INDEX projection_live ON projection (name) WHERE live;
COMMENT ON TABLE projection IS 'How far each generation of each projection has folded the log';

CREATE TABLE call_state (
    generation    integer     NOT NULL,
    call_id       text        NOT NULL,
    device        text        NOT NULL,
    from_position bigint      NOT NULL,
    to_position   bigint,
    from_at       timestamptz NOT NULL,
    occurred_at   timestamptz,
    agent         text,
    phone_number  text,
    state         text,
    conn_id       text,
    call_type     text,
    participants  jsonb       NOT NULL,
    user_data     jsonb       NOT NULL,
    call          jsonb       NOT NULL,
    PRIMARY KEY (generation, call_id, device, from_position)
);
CREATE INDEX call_state_open ON call_state (generation, from_position) WHERE to_position IS NULL;
COMMENT ON TABLE call_state IS 'One row per leg (call, device) and interval of positions';
COMMENT ON COLUMN call_state.to_position IS 'The position at which the next state begins; null: still so';

CREATE TABLE transfer_audit (
    generation     integer     NOT NULL,
    transfer_id    uuid        NOT NULL,
    call_id        text        NOT NULL,
    conn_id        text,
    agent          text        NOT NULL,
    caller         text        NOT NULL,
    door           text        NOT NULL,
    destination    text        NOT NULL,
    location       text,
    reason         text,
    user_data      jsonb       NOT NULL,
    outcome        text        NOT NULL,
    grade          text,
    status_code    integer,
    message        text,
    requested_at   timestamptz NOT NULL,
    dispatched_at  timestamptz,
    answered_at    timestamptz,
    settled_at     timestamptz,
    steps          jsonb       NOT NULL,
    evidence       jsonb       NOT NULL,
    first_position bigint      NOT NULL,
    last_position  bigint      NOT NULL,
    PRIMARY KEY (generation, transfer_id)
);
CREATE INDEX transfer_audit_call ON transfer_audit (generation, call_id);
CREATE INDEX transfer_audit_first ON transfer_audit (generation, first_position);
COMMENT ON TABLE transfer_audit IS 'One row per transfer, with each step''s time and position';
"""


def upgrade() -> None:
    for part in (LOG, TRANSFERS, MESSAGING, PROJECTIONS):
        run_script(op.get_bind(), part)


def downgrade() -> None:
    raise NotImplementedError("the first revision cannot be undone without losing the log")
