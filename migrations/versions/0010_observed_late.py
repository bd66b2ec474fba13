"""Observed transfers: a call keeps what it was told, so that what comes late can be put in its place."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0010"
down_revision = "0009"

# What a projection holds is folded anew from the log: nothing is lost by dropping it.
SCRIPT = """
DELETE FROM projection WHERE name = 'observed_transfer';
DELETE FROM projection_rebuild;
DROP TABLE observed_transfer;
CREATE TABLE observed_transfer (
    generation    integer NOT NULL,
    call_id       text    NOT NULL,
    conn_id       text,
    transfers     jsonb   NOT NULL,
    told          jsonb   NOT NULL,
    legs          jsonb   NOT NULL,
    commanded     jsonb   NOT NULL,
    dispatched    jsonb   NOT NULL,
    last_position bigint  NOT NULL,
    PRIMARY KEY (generation, call_id)
) PARTITION BY LIST (generation);
CREATE INDEX observed_transfer_found ON observed_transfer (last_position) WHERE transfers <> '[]';
COMMENT ON TABLE observed_transfer IS 'Per call, the transfers that were not commanded but observed';
COMMENT ON COLUMN observed_transfer.told IS 'What the rules took in, in the order of GWS''s own time';
COMMENT ON COLUMN observed_transfer.legs IS 'What the rules need to know of the call''s legs now';
"""


def upgrade() -> None:
    run_script(op.get_bind(), SCRIPT)


def downgrade() -> None:
    raise NotImplementedError("projections are built from the log by the program that is installed")
