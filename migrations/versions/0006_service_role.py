"""The service's own role: it may append to the log, and neither change nor delete what is there.

And the tree of a log that was begun before there was one (revision 0001) is made from its events.
"""

from __future__ import annotations

import asyncpg
from alembic import op
from sqlalchemy import Connection
from sqlalchemy.util import await_only

from service.log.backfill import backfill_tree
from service.postgres.schema import run_script

revision = "0006"
down_revision = "0005"

OLDER_PARTITIONS = """
-- The service may not read partitions but through their parent.
ALTER FUNCTION event_log_older_partitions(bigint) SECURITY DEFINER SET search_path FROM CURRENT;
"""

GRANT = """
-- Gives the role `calltrail_service` what the service needs, and says whether it could. Called after every
-- upgrade, so that tables of later revisions are covered too, and a role that was made by hand meanwhile.
CREATE FUNCTION calltrail_grant_service() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    one    record;
    super  CONSTANT boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
    allows text;
BEGIN
    BEGIN
        IF to_regrole('calltrail_service') IS NULL THEN
            CREATE ROLE calltrail_service NOLOGIN;
        END IF;
        IF NOT super AND NOT pg_has_role('calltrail_service', 'USAGE') THEN
            EXECUTE format('GRANT calltrail_service TO %I', current_user);
        END IF;
    EXCEPTION
        WHEN insufficient_privilege THEN RETURN false;
        WHEN duplicate_object OR unique_violation THEN NULL;  -- made for another database, this very moment
    END;
    -- What the service makes itself (generations of projections) stands in a schema of its own name, which
    -- is the first in its search path.
    IF to_regnamespace('calltrail_service') IS NULL THEN
        CREATE SCHEMA calltrail_service AUTHORIZATION calltrail_service;
    END IF;
    FOR one IN
        SELECT c.oid, c.oid::regclass AS name, n.nspname, c.relkind, c.relname, c.relowner,
               p.partstrat = 'l' AS lists, r.inhrelid IS NOT NULL AS of_log,
               EXISTS (
                   SELECT FROM pg_class g JOIN pg_partitioned_table l ON l.partrelid = g.oid
                   WHERE l.partstrat = 'l' AND c.relname ~ ('^' || g.relname || '_g[0-9]+$')
               ) AS generation
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
        LEFT JOIN pg_inherits r ON r.inhrelid = c.oid AND r.inhparent = 'event_log'::regclass
        WHERE c.relkind IN ('r', 'p', 'v', 'm') AND pg_has_role(c.relowner, 'USAGE')
          AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'calltrail_service')
    LOOP
        CONTINUE WHEN one.of_log OR has_table_privilege('calltrail_service', one.oid, 'SELECT');
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO calltrail_service', one.nspname);
        IF one.lists OR one.generation THEN
            EXECUTE format('GRANT CREATE ON SCHEMA %I TO calltrail_service', one.nspname);
            EXECUTE format('ALTER TABLE %s OWNER TO calltrail_service', one.name);
            EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM calltrail_service', one.nspname);
            CONTINUE;
        END IF;
        allows := CASE
            WHEN one.relname IN ('event_log', 'log_tile', 'log_checkpoint', 'log_codec') THEN 'SELECT, INSERT'
            WHEN one.relname = 'log_head' THEN 'SELECT, UPDATE'
            WHEN one.relname = 'alembic_version' OR one.relkind IN ('v', 'm') THEN 'SELECT'
            ELSE 'SELECT, INSERT, UPDATE, DELETE'
        END;
        EXECUTE format('GRANT %s ON %s TO calltrail_service', allows, one.name);
    END LOOP;
    GRANT EXECUTE ON FUNCTION event_log_redact(bigint, bytea) TO calltrail_service;
    RETURN true;
END $$;
"""


def upgrade() -> None:
    bind = op.get_bind()
    run_script(bind, OLDER_PARTITIONS)
    run_script(bind, GRANT)
    await_only(backfill_tree(driver_of(bind)))


def driver_of(connection: Connection) -> asyncpg.Connection[asyncpg.Record]:
    driver = connection.connection.driver_connection
    assert driver is not None
    return driver


def downgrade() -> None:
    op.execute("DROP FUNCTION calltrail_grant_service()")
