"""What a recorder needs to go on with its CometD sessions after a restart, and who records which agent."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0003"
down_revision = "0002"

SCRIPT = """
CREATE TABLE recorder_session (
    agent      text        NOT NULL PRIMARY KEY,
    owner      bigint,
    status     text        NOT NULL DEFAULT 'starting',
    reason     text        NOT NULL DEFAULT '',
    session    uuid,
    delivered  bigint      NOT NULL DEFAULT 0,
    acked      bigint      NOT NULL DEFAULT 0,
    alive_at   timestamptz,
    idle       boolean     NOT NULL DEFAULT false,
    secret     bytea,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE recorder_session IS 'Each agent''s CometD session, changed in the transaction of its events';
COMMENT ON COLUMN recorder_session.owner IS 'The advisory lock that the recording process holds';
COMMENT ON COLUMN recorder_session.session IS 'The key of the session''s event ids; null: none to go on with';
COMMENT ON COLUMN recorder_session.delivered IS 'How many events of the session are durable';
COMMENT ON COLUMN recorder_session.acked IS 'The last batch whose events are durable';
COMMENT ON COLUMN recorder_session.alive_at IS 'Up to here nothing was missed';
COMMENT ON COLUMN recorder_session.idle IS 'No poll was under way when its process ended';
COMMENT ON COLUMN recorder_session.secret IS 'Client id, cookies and CSRF token, sealed with a key outside';
"""


def upgrade() -> None:
    run_script(op.get_bind(), SCRIPT)


def downgrade() -> None:
    op.execute("DROP TABLE recorder_session")
