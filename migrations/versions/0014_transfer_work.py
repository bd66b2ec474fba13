"""The changes of the transfers' queue as functions, which are planned once."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0014"
down_revision = "0013"

UP = """
-- Enters transfers; `next_position` is then beyond their first events, and before whatever tells of them.
CREATE FUNCTION transfer_work_enter(rows jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO transfer_work (transfer_id, state, owner, due_at, call_id, agent, dispatched_position)
    SELECT entered.transfer_id, entered.state, entered.owner,
        clock_timestamp() + make_interval(secs => due_in_s), entered.call_id, entered.agent, next_position
    FROM log_head, jsonb_to_recordset(rows)
        AS entered (transfer_id uuid, state text, owner uuid, due_in_s float8, call_id text, agent text)
    ON CONFLICT (transfer_id) DO NOTHING;
END $$;

CREATE FUNCTION transfer_work_move(rows jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE transfer_work AS w
    SET state = moved.state, owner = moved.owner,
        due_at = clock_timestamp() + make_interval(secs => due_in_s)
    FROM jsonb_to_recordset(rows) AS moved (transfer_id uuid, state text, owner uuid, due_in_s float8)
    WHERE w.transfer_id = moved.transfer_id;
END $$;

CREATE FUNCTION transfer_work_close(rows jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM transfer_work AS w USING jsonb_to_recordset(rows) AS closed (transfer_id uuid)
    WHERE w.transfer_id = closed.transfer_id;
END $$;
"""


def upgrade() -> None:
    run_script(op.get_bind(), UP)


def downgrade() -> None:
    run_script(
        op.get_bind(),
        "DROP FUNCTION transfer_work_enter, transfer_work_move, transfer_work_close",
    )
