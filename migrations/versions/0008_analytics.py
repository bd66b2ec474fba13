"""Facts about calls and transfers, and the schema `analytics`: documented views for analysts."""

from __future__ import annotations

from alembic import op

from service.postgres.schema import run_script

revision = "0008"
down_revision = "0007"

TABLES = """
CREATE TABLE call_facts (
    generation     integer          NOT NULL,
    call_id        text             NOT NULL,
    root_call_id   text             NOT NULL,
    conn_id        text,
    call_type      text,
    started_at     timestamptz      NOT NULL,
    started_date   date             NOT NULL,
    started_hour   smallint         NOT NULL,
    weekday        smallint         NOT NULL,
    ended_at       timestamptz,
    agent_id       text,
    agent_ids      text[]           NOT NULL,
    talk_seconds   double precision NOT NULL,
    is_handled     boolean          NOT NULL,
    transfers      integer          NOT NULL,
    state          jsonb            NOT NULL,
    position_first bigint           NOT NULL,
    position_last  bigint           NOT NULL,
    PRIMARY KEY (generation, call_id)
) PARTITION BY LIST (generation);
CREATE INDEX call_facts_started ON call_facts (started_at);
COMMENT ON TABLE call_facts IS 'One row per call: what analysts count, and what the fold goes on from';

CREATE TABLE transfer_facts (
    generation           integer          NOT NULL,
    transfer_id          uuid             NOT NULL,
    call_id              text             NOT NULL,
    root_call_id         text             NOT NULL,
    conn_id              text,
    chain_index          integer          NOT NULL,
    chain_length         integer          NOT NULL,
    requested_at         timestamptz      NOT NULL,
    requested_date       date             NOT NULL,
    requested_hour       smallint         NOT NULL,
    weekday              smallint         NOT NULL,
    recorded_at          timestamptz      NOT NULL,
    settled_at           timestamptz,
    agent_id             text,
    from_dn              text,
    destination          text,
    destination_type     text             NOT NULL,
    destination_agent_id text,
    operation            text             NOT NULL,
    is_commanded         boolean          NOT NULL,
    resource_role        text             NOT NULL,
    technical_result     text,
    result_reason        text             NOT NULL,
    reason               text             NOT NULL,
    reason_raw           text,
    reason_source        text,
    is_reason_mapped     boolean          NOT NULL,
    outcome              text             NOT NULL,
    status_code          integer,
    is_carried_out       boolean          NOT NULL,
    is_ping_pong         boolean          NOT NULL,
    abandoned_after      boolean          NOT NULL,
    talk_seconds_before  double precision,
    handover_seconds     double precision,
    total_call_seconds   double precision,
    user_data            jsonb            NOT NULL,
    position_first       bigint           NOT NULL,
    position_known       bigint           NOT NULL,
    position_last        bigint           NOT NULL,
    PRIMARY KEY (generation, transfer_id)
) PARTITION BY LIST (generation);
CREATE INDEX transfer_facts_call ON transfer_facts (call_id);
CREATE INDEX transfer_facts_requested ON transfer_facts (requested_at, position_known, transfer_id)
    INCLUDE (generation);
CREATE INDEX transfer_facts_agent ON transfer_facts (agent_id, requested_at);
CREATE INDEX transfer_facts_destination ON transfer_facts (destination, requested_at);
CREATE INDEX transfer_facts_reason ON transfer_facts (reason, requested_at);
CREATE INDEX transfer_facts_outcome ON transfer_facts (outcome, requested_at);
CREATE INDEX transfer_facts_user_data ON transfer_facts USING gin (user_data jsonb_path_ops);
COMMENT ON TABLE transfer_facts IS 'One row per transfer, commanded or observed: the parts of call_facts';
"""

VIEWS = """
CREATE SCHEMA analytics;
COMMENT ON SCHEMA analytics IS 'Views for analysts: stable names, and a comment on each column';

CREATE VIEW analytics.gap AS
SELECT c.agent AS agent_id, s.kind, s."from" AS begins_at, coalesce(s."to", 'infinity') AS ends_at, s.why,
       s.position
FROM coverage c
CROSS JOIN LATERAL jsonb_to_recordset(c.spans)
    AS s (kind text, "from" timestamptz, "to" timestamptz, why text, position bigint)
WHERE c.generation = (SELECT generation FROM projection WHERE name = 'coverage' AND live)
  AND s.kind <> 'complete';

CREATE VIEW analytics.fact_transfer AS
SELECT t.transfer_id, t.call_id, t.root_call_id, t.conn_id, t.chain_index, t.chain_length,
       t.requested_at, t.requested_date, t.requested_hour, t.weekday, t.recorded_at, t.settled_at,
       t.agent_id, t.from_dn, t.destination, t.destination_type, t.destination_agent_id,
       t.operation, t.operation = 'single-step' AS is_blind, t.is_commanded,
       t.resource_role, t.technical_result, t.result_reason,
       t.reason, t.reason_raw, t.reason_source, t.is_reason_mapped,
       t.outcome, t.status_code, t.is_carried_out, t.is_ping_pong, t.abandoned_after,
       t.talk_seconds_before, t.handover_seconds, t.total_call_seconds,
       EXISTS (SELECT FROM analytics.gap g WHERE g.agent_id = t.agent_id
               AND g.begins_at <= coalesce(t.settled_at, 'infinity')
               AND g.ends_at >= t.recorded_at) AS has_gap,
       t.user_data, t.position_first, t.position_known, t.position_last
FROM transfer_facts t
WHERE t.generation = (SELECT generation FROM projection WHERE name = 'transfer_facts' AND live);

CREATE VIEW analytics.fact_call AS
SELECT c.call_id, c.root_call_id, c.conn_id, c.call_type, c.started_at, c.started_date, c.started_hour,
       c.weekday, c.ended_at, c.agent_id, c.agent_ids, c.talk_seconds, c.is_handled, c.transfers,
       c.position_first, c.position_last
FROM call_facts c
WHERE c.generation = (SELECT generation FROM projection WHERE name = 'transfer_facts' AND live);

CREATE VIEW analytics.transfer_user_data AS
SELECT t.transfer_id, u.key, u.value
FROM analytics.fact_transfer t CROSS JOIN LATERAL jsonb_each_text(t.user_data) AS u;

CREATE VIEW analytics.transfer_rate_daily AS
SELECT started_date, count(*) AS calls, count(*) FILTER (WHERE transfers > 0) AS transferred_calls,
       sum(transfers)::bigint AS transfers,
       count(*) FILTER (WHERE transfers > 0)::float8 / count(*) AS transferred_call_rate,
       sum(transfers)::float8 / count(*) AS transfers_per_call
FROM analytics.fact_call WHERE is_handled GROUP BY started_date;

CREATE VIEW analytics.transfer_reasons_hourly AS
SELECT date_trunc('hour', requested_at) AS "time", reason, count(*) AS transfers,
       count(*) FILTER (WHERE is_carried_out) AS carried_out
FROM analytics.fact_transfer GROUP BY 1, 2;

CREATE VIEW analytics.agent_destination_matrix AS
SELECT coalesce(agent_id, 'unknown') AS agent_id, coalesce(destination, 'unknown') AS destination,
       count(*) AS transfers, count(*) FILTER (WHERE is_carried_out) AS carried_out
FROM analytics.fact_transfer GROUP BY 1, 2;

CREATE VIEW analytics.chains AS
SELECT call_id, max(chain_length) AS chain_length, min(requested_at) AS first_requested_at,
       max(requested_at) AS last_requested_at,
       array_agg(coalesce(agent_id, 'unknown') ORDER BY chain_index) AS agent_ids,
       array_agg(coalesce(destination, 'unknown') ORDER BY chain_index) AS destinations,
       bool_or(is_ping_pong) AS is_ping_pong
FROM analytics.fact_transfer WHERE is_carried_out GROUP BY call_id;

CREATE VIEW analytics.ping_pong AS
SELECT transfer_id, call_id, chain_index, chain_length, requested_at, agent_id, from_dn, destination, reason
FROM analytics.fact_transfer WHERE is_ping_pong;

CREATE VIEW analytics.data_quality AS
SELECT requested_date, count(*) AS transfers,
       count(*) FILTER (WHERE reason_source IS NOT NULL) AS with_reason,
       count(*) FILTER (WHERE reason_source IS NOT NULL AND NOT is_reason_mapped) AS unmapped_reason,
       count(*) FILTER (WHERE has_gap) AS with_gap, count(*) FILTER (WHERE outcome = 'in_doubt') AS in_doubt,
       count(*) FILTER (WHERE destination IS NULL) AS without_destination
FROM analytics.fact_transfer GROUP BY requested_date;

CREATE VIEW analytics.freshness AS
SELECT coalesce(p.position, -1) AS position, h.next_position - 1 AS head,
       h.next_position - 1 - coalesce(p.position, -1) AS lag_events,
       coalesce(extract(epoch FROM clock_timestamp() - e.recorded_at), 0)::float8 AS lag_seconds
FROM log_head h LEFT JOIN projection p ON p.name = 'transfer_facts' AND p.live
LEFT JOIN event_log e ON e.position = coalesce(p.position, -1) + 1;

CREATE VIEW analytics.dim_agent AS
SELECT agent_id, count(*) AS transfers, min(requested_at) AS first_requested_at,
       max(requested_at) AS last_requested_at
FROM analytics.fact_transfer WHERE agent_id IS NOT NULL GROUP BY agent_id;

CREATE VIEW analytics.dim_destination AS
SELECT destination, max(destination_agent_id) AS destination_agent_id,
       min(destination_type) AS destination_type, count(*) AS transfers
FROM analytics.fact_transfer WHERE destination IS NOT NULL GROUP BY destination;

CREATE VIEW analytics.dim_reason AS
SELECT reason, count(DISTINCT reason_raw) AS spellings, bool_or(is_reason_mapped) AS is_mapped,
       count(*) AS transfers
FROM analytics.fact_transfer GROUP BY reason;

CREATE VIEW analytics.dim_date AS
SELECT d::date AS requested_date, extract(isoyear FROM d)::integer AS iso_year,
       extract(week FROM d)::integer AS iso_week, extract(month FROM d)::integer AS month,
       extract(isodow FROM d)::integer AS weekday
FROM (SELECT min(requested_date) AS first, max(requested_date) AS last FROM analytics.fact_transfer) AS span
CROSS JOIN LATERAL generate_series(span.first::timestamp, span.last::timestamp, interval '1 day') AS d;

CREATE VIEW analytics.dim_hour AS
SELECT hour AS requested_hour, to_char(hour, 'FM00') || ':00' AS label FROM generate_series(0, 23) AS hour;
"""

TRANSFER_ID = "The transfer''s id, as in every answer of calltrail"
CALL_ID = "The call as GWS names it; joins fact_call and fact_transfer"
AGENT = "User name of the agent who transferred; null if the record does not tell"
REASON = "Why, normalised by the site''s mapping; unknown if no reason was given"
COUNTED = "How many transfers, whatever became of them"
CARRIED_OUT = "How many of them are known to have left the agent"
DATE = "Date of the request in the site''s time zone"
WEEKDAY = "1 is Monday, 7 Sunday, in the site''s time zone"
FIRST, LAST = "Position in the log of its first event", "Position in the log of its newest event"

COMMENTS: dict[str, tuple[str, dict[str, str]]] = {
    "gap": (
        "Spans in which an agent''s record is doubtful or missing",
        {
            "agent_id": "User name of the agent whose session it was",
            "kind": "missing: no session was open; doubtful: something may have been lost",
            "begins_at": "From when on; the last moment at which the session was known to be alive",
            "ends_at": "Until when; infinity if it still is so",
            "why": "What the recorder noted as the cause",
            "position": "Position in the log of the event that told of it",
        },
    ),
    "fact_transfer": (
        "One row per transfer, commanded through calltrail or only observed",
        {
            "transfer_id": TRANSFER_ID,
            "call_id": CALL_ID,
            "root_call_id": "The call that a consult call belongs to; otherwise the call itself",
            "conn_id": "Genesys''s connection id",
            "chain_index": "1 for the first transfer of the call; counts those that were carried out",
            "chain_length": "How many transfers of the call were carried out",
            "requested_at": "When it was requested, or done if only observed; by GWS''s clock where it tells",
            "requested_date": DATE,
            "requested_hour": "Hour of the request, 0 to 23, in the site''s time zone",
            "weekday": WEEKDAY,
            "recorded_at": "When we recorded the request or, if only observed, the transfer; by our clock",
            "settled_at": "When the outcome was known; null while it is not",
            "agent_id": AGENT,
            "from_dn": "The number that the call left",
            "destination": "The number that it was transferred to; null if the record does not tell",
            "destination_type": "agent: the leg there is in the record; external: the call left; or unknown",
            "destination_agent_id": "User name of the agent at the destination, if it is one",
            "operation": "single-step, or two-step after a consult call",
            "is_blind": "Whether it was made in a single step, without consulting",
            "is_commanded": "True: commanded through calltrail; false: only observed",
            "resource_role": "Received, ReceivedTransfer or Initiated (Info Mart''s words)",
            "technical_result": "Transferred or Failed (Info Mart''s words); null while not known",
            "result_reason": "AnsweredByAgent, AbandonedWhileRinging or Unspecified (Info Mart''s words)",
            "reason": REASON,
            "reason_raw": "The reason as it stood in userData; null if none did",
            "reason_source": "The key of userData that held the reason; null if none did",
            "is_reason_mapped": "Whether the site''s mapping knows the reason; true if there is none",
            "outcome": "requested, dispatched, accepted, rejected, in_doubt, confirmed, failed, abandoned, "
            "contradicted, not_sent; observed or recalled if only observed",
            "status_code": "GWS''s statusCode; null if there was no answer",
            "is_carried_out": "Whether the call is known to have left: confirmed, observed, recalled",
            "is_ping_pong": "Whether it went to a number that had had this call before",
            "abandoned_after": "Whether the call ended while it rang at the destination",
            "talk_seconds_before": "Seconds from the agent''s answering to the request, hold included",
            "handover_seconds": "Seconds from the request until the destination talked",
            "total_call_seconds": "Seconds that the whole call lasted; null while it goes on",
            "has_gap": "Whether the agent''s record has a gap between request and outcome",
            "user_data": "The call''s userData with the transfer''s own, as JSON; by key: transfer_user_data",
            "position_first": FIRST,
            "position_known": "Position in the log at which the transfer was known: what as_of compares with",
            "position_last": LAST,
        },
    ),
    "fact_call": (
        "One row per call: the denominator of every rate",
        {
            "call_id": CALL_ID,
            "root_call_id": "The call that a consult call belongs to; otherwise the call itself",
            "conn_id": "Genesys''s connection id",
            "call_type": "Inbound, Outbound, Internal, Consult or Unknown, as GWS says",
            "started_at": "When it began to ring, by GWS''s clock where it tells one",
            "started_date": "Date of the beginning in the site''s time zone",
            "started_hour": "Hour of the beginning, 0 to 23, in the site''s time zone",
            "weekday": WEEKDAY,
            "ended_at": "When its last recorded leg was released; null while one is not",
            "agent_id": "User name of the agent who answered first; null if none did",
            "agent_ids": "All agents who talked, in order",
            "talk_seconds": "Seconds that agents talked, all together, hold included",
            "is_handled": "Whether an agent talked and it is no consult call: what rates count",
            "transfers": "How many transfers of it were carried out",
            "position_first": FIRST,
            "position_last": LAST,
        },
    ),
    "transfer_user_data": (
        "userData of transfers, one row per key",
        {"transfer_id": TRANSFER_ID, "key": "The key", "value": "Its value as text"},
    ),
    "transfer_rate_daily": (
        "How many of the calls that agents handled were transferred, by day; both usual definitions",
        {
            "started_date": "Date on which the calls began, in the site''s time zone",
            "calls": "Calls that an agent handled, consult calls left out",
            "transferred_calls": "Those that were transferred at least once",
            "transfers": "All transfers of those calls that were carried out",
            "transferred_call_rate": "transferred_calls divided by calls",
            "transfers_per_call": "transfers divided by calls",
        },
    ),
    "transfer_reasons_hourly": (
        "Transfers by hour and reason, as a time series",
        {
            "time": "The hour in which they were requested",
            "reason": REASON,
            "transfers": COUNTED,
            "carried_out": CARRIED_OUT,
        },
    ),
    "agent_destination_matrix": (
        "Who transfers to whom",
        {
            "agent_id": "User name of the agent who transferred, or unknown",
            "destination": "The number transferred to, or unknown",
            "transfers": COUNTED,
            "carried_out": CARRIED_OUT,
        },
    ),
    "chains": (
        "Calls that were transferred, with the way that each took",
        {
            "call_id": CALL_ID,
            "chain_length": "How many transfers were carried out",
            "first_requested_at": "When the first was requested",
            "last_requested_at": "When the last was requested",
            "agent_ids": "Who transferred, in order",
            "destinations": "Where to, in order",
            "is_ping_pong": "Whether the call came back to a number that had had it",
        },
    ),
    "ping_pong": (
        "Transfers to a number that had had the call before",
        {
            "transfer_id": TRANSFER_ID,
            "call_id": CALL_ID,
            "chain_index": "Its number among the transfers of the call",
            "chain_length": "How many transfers of the call were carried out",
            "requested_at": "When it was requested",
            "agent_id": AGENT,
            "from_dn": "The number that the call left",
            "destination": "The number that it went back to",
            "reason": REASON,
        },
    ),
    "data_quality": (
        "How far the figures of a day can be trusted",
        {
            "requested_date": DATE,
            "transfers": COUNTED,
            "with_reason": "Those with a reason",
            "unmapped_reason": "Those with a reason that the site''s mapping does not know",
            "with_gap": "Those during which the agent''s record has a gap",
            "in_doubt": "Those of which nobody knows whether they happened",
            "without_destination": "Those whose destination is not in the record",
        },
    ),
    "freshness": (
        "How far behind the log these views are",
        {
            "position": "Position up to which they have taken in the log",
            "head": "Last position of the log",
            "lag_events": "Events between the two",
            "lag_seconds": "Age of the first event not taken in, in seconds; 0 if there is none",
        },
    ),
    "dim_agent": (
        "Agents who have transferred",
        {
            "agent_id": "User name",
            "transfers": COUNTED,
            "first_requested_at": "When the first was requested",
            "last_requested_at": "When the last was requested",
        },
    ),
    "dim_destination": (
        "Numbers to which calls were transferred",
        {
            "destination": "The number",
            "destination_agent_id": "User name of the agent there, if it is one",
            "destination_type": "agent, external or unknown",
            "transfers": COUNTED,
        },
    ),
    "dim_reason": (
        "Reasons that have occurred",
        {
            "reason": REASON,
            "spellings": "In how many spellings it occurred in userData",
            "is_mapped": "Whether the site''s mapping knows it",
            "transfers": COUNTED,
        },
    ),
    "dim_date": (
        "Every date from the first transfer to the last",
        {
            "requested_date": "The date",
            "iso_year": "Year of the ISO week",
            "iso_week": "ISO week, 1 to 53",
            "month": "Month, 1 to 12",
            "weekday": "1 is Monday, 7 Sunday",
        },
    ),
    "dim_hour": (
        "The hours of a day",
        {"requested_hour": "0 to 23", "label": "The hour as people write it, 00:00 to 23:00"},
    ),
}

# A cluster has its roles in common, and an installation may not be allowed to make any.
ROLE = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'calltrail_analyst') THEN
        CREATE ROLE calltrail_analyst LOGIN;
        ALTER ROLE calltrail_analyst SET statement_timeout = '30s';
        ALTER ROLE calltrail_analyst SET default_transaction_read_only = on;
        ALTER ROLE calltrail_analyst SET search_path = analytics;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE WARNING 'calltrail_analyst cannot be made by this user: see docs/analytics.md';
END $$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'calltrail_analyst') THEN
        GRANT USAGE ON SCHEMA analytics TO calltrail_analyst;
        GRANT SELECT ON ALL TABLES IN SCHEMA analytics TO calltrail_analyst;
    END IF;
END $$;

-- Lets nobody but the service call the functions that run with their owner's rights. Called after every
-- upgrade, when it is known whether the service has a role of its own.
CREATE FUNCTION calltrail_keep_functions() RETURNS void LANGUAGE plpgsql AS $keep$
DECLARE
    lending regprocedure;
BEGIN
    FOR lending IN SELECT oid FROM pg_proc
        WHERE prosecdef AND pronamespace = current_schema()::regnamespace AND pg_has_role(proowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', lending);
        IF to_regrole('calltrail_service') IS NOT NULL THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO calltrail_service', lending);
        END IF;
    END LOOP;
END $keep$;
"""


def upgrade() -> None:
    for part in (TABLES, VIEWS, comments(), ROLE):
        run_script(op.get_bind(), part)


def comments() -> str:
    said = []
    for view, (meaning, columns) in COMMENTS.items():
        said.append(f"COMMENT ON VIEW analytics.{view} IS '{meaning}';")
        said += [f"COMMENT ON COLUMN analytics.{view}.{name} IS '{text}';" for name, text in columns.items()]
    return "\n".join(said)


def downgrade() -> None:
    raise NotImplementedError("views are made by the program that is installed")
