"""The transfers' work becomes a queue: who holds a transfer, and the calls they are of."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0004"
down_revision = "0003"

UP = """
ALTER TABLE transfer_work ADD COLUMN owner uuid;
COMMENT ON COLUMN transfer_work.owner IS 'The process that has it in hand; its claim ends at due_at';
COMMENT ON COLUMN transfer_work.due_at IS 'When it is anybody''s to take up or to look at; not before';
COMMENT ON TABLE transfer_work IS
    'Transfers that something may still happen to; kept in the transaction of each event';
CREATE INDEX transfer_work_call ON transfer_work (call_id);
"""

DOWN = """
DROP INDEX transfer_work_call;
ALTER TABLE transfer_work DROP COLUMN owner;
"""


def upgrade() -> None:
    run_script(op.get_bind(), UP)


def downgrade() -> None:
    run_script(op.get_bind(), DOWN)
