"""The tables of `transfer_facts`: one row per call, and one per transfer."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from service.projections.projection import metadata

table = sa.Table(
    "call_facts",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("call_id", sa.Text, primary_key=True),
    sa.Column("root_call_id", sa.Text, nullable=False),
    sa.Column("conn_id", sa.Text),
    sa.Column("call_type", sa.Text),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("started_date", sa.Date, nullable=False),
    sa.Column("started_hour", sa.SmallInteger, nullable=False),
    sa.Column("weekday", sa.SmallInteger, nullable=False),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("agent_id", sa.Text),
    sa.Column("agent_ids", ARRAY(sa.Text), nullable=False),
    sa.Column("talk_seconds", sa.Float, nullable=False),
    sa.Column("is_handled", sa.Boolean, nullable=False),
    sa.Column("transfers", sa.Integer, nullable=False),
    sa.Column("state", JSONB, nullable=False),
    sa.Column("position_first", sa.BigInteger, nullable=False),
    sa.Column("position_last", sa.BigInteger, nullable=False),
)

parts_table = sa.Table(
    "transfer_facts",
    metadata,
    sa.Column("generation", sa.Integer, primary_key=True),
    sa.Column("transfer_id", sa.Uuid, primary_key=True),
    sa.Column("call_id", sa.Text, nullable=False),
    sa.Column("root_call_id", sa.Text, nullable=False),
    sa.Column("conn_id", sa.Text),
    sa.Column("chain_index", sa.Integer, nullable=False),
    sa.Column("chain_length", sa.Integer, nullable=False),
    sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("requested_date", sa.Date, nullable=False),
    sa.Column("requested_hour", sa.SmallInteger, nullable=False),
    sa.Column("weekday", sa.SmallInteger, nullable=False),
    sa.Column("settled_at", sa.DateTime(timezone=True)),
    sa.Column("agent_id", sa.Text),
    sa.Column("from_dn", sa.Text),
    sa.Column("destination", sa.Text),
    sa.Column("destination_type", sa.Text, nullable=False),
    sa.Column("destination_agent_id", sa.Text),
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("is_commanded", sa.Boolean, nullable=False),
    sa.Column("resource_role", sa.Text, nullable=False),
    sa.Column("technical_result", sa.Text),
    sa.Column("result_reason", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("reason_raw", sa.Text),
    sa.Column("reason_source", sa.Text),
    sa.Column("is_reason_mapped", sa.Boolean, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("status_code", sa.Integer),
    sa.Column("is_carried_out", sa.Boolean, nullable=False),
    sa.Column("is_ping_pong", sa.Boolean, nullable=False),
    sa.Column("abandoned_after", sa.Boolean, nullable=False),
    sa.Column("talk_seconds_before", sa.Float),
    sa.Column("handover_seconds", sa.Float),
    sa.Column("total_call_seconds", sa.Float),
    sa.Column("user_data", JSONB, nullable=False),
    sa.Column("position_first", sa.BigInteger, nullable=False),
    sa.Column("position_known", sa.BigInteger, nullable=False),
    sa.Column("position_last", sa.BigInteger, nullable=False),
)
