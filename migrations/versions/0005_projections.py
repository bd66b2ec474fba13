"""Projections by generation: partitions, intervals by node, coverage, events set aside, rebuilds."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0005"
down_revision = "0004"

# What a projection holds is folded anew from the log: nothing is lost by dropping it.
SCRIPT = """
DELETE FROM projection;
ALTER TABLE projection ADD COLUMN beat_at timestamptz;
COMMENT ON COLUMN projection.beat_at IS 'When the engine last said that it is alive';

CREATE TABLE projection_set_aside (
    name       text        NOT NULL,
    generation integer     NOT NULL,
    position   bigint      NOT NULL,
    reason     text        NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, generation, position)
);
COMMENT ON TABLE projection_set_aside IS 'Events that a projection could not digest, and why';

CREATE TABLE projection_rebuild (
    id          uuid        NOT NULL,
    share       integer     NOT NULL,
    shares      integer     NOT NULL,
    position    bigint      NOT NULL DEFAULT -1,
    upto        bigint      NOT NULL,
    what        text        NOT NULL,
    generations jsonb       NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, share)
);
COMMENT ON TABLE projection_rebuild IS 'How far each process of a rebuild under way has come';

DROP TABLE call_state;
CREATE TABLE call_state (
    generation     integer     NOT NULL,
    call_id        text        NOT NULL,
    device         text        NOT NULL,
    from_position  bigint      NOT NULL,
    to_position    bigint,
    node           bigint,
    from_at        timestamptz NOT NULL,
    occurred_at    timestamptz,
    session        uuid        NOT NULL,
    agent          text,
    phone_number   text,
    state          text,
    conn_id        text,
    call_type      text,
    parent_call_id text,
    participants   jsonb       NOT NULL,
    user_data      jsonb       NOT NULL,
    doubt          text,
    PRIMARY KEY (generation, call_id, device, from_position)
) PARTITION BY LIST (generation);
CREATE INDEX call_state_node_to ON call_state (node, to_position)
    WHERE coalesce(state, '') NOT IN ('Released', 'Completed');
CREATE INDEX call_state_node_from ON call_state (node, from_position)
    WHERE coalesce(state, '') NOT IN ('Released', 'Completed');
COMMENT ON TABLE call_state IS 'One row per leg (call, device) and interval of positions';
COMMENT ON COLUMN call_state.to_position IS 'The position at which the next state begins; null: still so';
COMMENT ON COLUMN call_state.node IS 'Where a closed interval is filed, to be found by a position in it';
COMMENT ON COLUMN call_state.doubt IS 'What is not certain about this state, if anything';

ALTER TABLE transfer_audit RENAME TO transfer_audit_before;
CREATE TABLE transfer_audit (LIKE transfer_audit_before) PARTITION BY LIST (generation);
DROP TABLE transfer_audit_before;
ALTER TABLE transfer_audit ADD PRIMARY KEY (generation, transfer_id);
CREATE INDEX transfer_audit_call ON transfer_audit (generation, call_id);
CREATE INDEX transfer_audit_first ON transfer_audit (generation, first_position);
COMMENT ON TABLE transfer_audit IS 'One row per transfer, with each step''s time and position';

CREATE TABLE coverage (
    generation    integer NOT NULL,
    agent         text    NOT NULL,
    session       uuid,
    spans         jsonb   NOT NULL,
    last_position bigint  NOT NULL,
    PRIMARY KEY (generation, agent)
) PARTITION BY LIST (generation);
COMMENT ON TABLE coverage IS 'Per agent, the spans in which the record is complete, doubtful or missing';

CREATE TABLE observed_transfer (
    generation    integer NOT NULL,
    call_id       text    NOT NULL,
    conn_id       text,
    transfers     jsonb   NOT NULL,
    legs          jsonb   NOT NULL,
    commanded     jsonb   NOT NULL,
    dispatched    jsonb   NOT NULL,
    last_position bigint  NOT NULL,
    PRIMARY KEY (generation, call_id)
) PARTITION BY LIST (generation);
CREATE INDEX observed_transfer_found ON observed_transfer (last_position) WHERE transfers <> '[]';
COMMENT ON TABLE observed_transfer IS 'Per call, the transfers that were not commanded but observed';
COMMENT ON COLUMN observed_transfer.legs IS 'What the rules need to know of the call''s legs';
"""


def upgrade() -> None:
    run_script(op.get_bind(), SCRIPT)


def downgrade() -> None:
    raise NotImplementedError("projections are built from the log by the program that is installed")
