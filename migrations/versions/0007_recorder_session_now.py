"""Which agents' sessions are attended, as a view that the recorder and the coverage both read."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0007"
down_revision = "0006"

SCRIPT = """
CREATE VIEW advisory_lock_held AS
SELECT classid::bigint << 32 | objid::bigint AS number FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
COMMENT ON VIEW advisory_lock_held IS 'The numbers of the advisory locks that somebody holds';

CREATE VIEW recorder_session_now AS
SELECT agent, coalesce(owner IN (SELECT number FROM advisory_lock_held), false) AS attended,
    status, reason, session, delivered, alive_at, updated_at
FROM recorder_session;
COMMENT ON VIEW recorder_session_now IS 'Each agent''s session, and whether a living process records it';
"""


def upgrade() -> None:
    run_script(op.get_bind(), SCRIPT)


def downgrade() -> None:
    run_script(op.get_bind(), "DROP VIEW recorder_session_now; DROP VIEW advisory_lock_held")
