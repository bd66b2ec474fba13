"""What the tap knows of the CometD sessions that pass through it, so that another process can go on."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0009"
down_revision = "0008"

SCRIPT = """
CREATE TABLE tap_session (
    client     bytea       NOT NULL PRIMARY KEY,
    owner      bigint      NOT NULL,
    session    uuid        NOT NULL,
    agent      text,
    ack        boolean     NOT NULL,
    channels   text[]      NOT NULL,
    opened_at  timestamptz,
    opened     boolean     NOT NULL,
    delivered  bigint      NOT NULL,
    base       bigint      NOT NULL,
    batches    bigint[]    NOT NULL,
    ends       bigint[]    NOT NULL,
    batch      bigint      NOT NULL,
    alive_at   timestamptz NOT NULL,
    patience_s double precision NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
CREATE INDEX tap_session_updated_at ON tap_session (updated_at);
COMMENT ON TABLE tap_session IS 'CometD sessions of applications, changed in the transaction of their events';
COMMENT ON COLUMN tap_session.client IS 'SHA-256 of the client id, which is a credential';
COMMENT ON COLUMN tap_session.owner IS 'The process that saw its last answer';
COMMENT ON COLUMN tap_session.session IS 'The key of the session''s event ids';
COMMENT ON COLUMN tap_session.opened IS 'Whether its SessionOpened is in the log';
COMMENT ON COLUMN tap_session.base IS 'How many of its events had been acknowledged';
COMMENT ON COLUMN tap_session.batches IS 'Batches that brought events and were not acknowledged';
COMMENT ON COLUMN tap_session.ends IS 'For each of them, how many events the session had brought by its end';
COMMENT ON COLUMN tap_session.batch IS 'Up to this batch the record is certain';
COMMENT ON COLUMN tap_session.alive_at IS 'Up to here nothing was missed';
COMMENT ON COLUMN tap_session.patience_s IS 'After so long without a poll it is over';
"""


def upgrade() -> None:
    run_script(op.get_bind(), SCRIPT)


def downgrade() -> None:
    op.execute("DROP TABLE tap_session")
