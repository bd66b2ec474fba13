"""One transfer as every export writes it: flat, one value a column, times in UTC, gaps said in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from service.log import rfc3339


class Column(NamedTuple):
    """A column of an export: its name, its Parquet type and what it means."""

    name: str
    type: str
    meaning: str


COLUMNS = (
    Column("transfer_id", "string", "the transfer's id in calltrail"),
    Column("call_id", "string", "GWS's id of the call"),
    Column("conn_id", "string", "the call's connection id in T-Server"),
    Column("agent", "string", "the agent whose leg was transferred"),
    Column("caller", "string", "who asked for it, as authenticated; empty if only observed"),
    Column("door", "string", "how the command came in: gws, api, message, tap; observed: not through us"),
    Column("operation", "string", "how an observed transfer was done; empty if commanded"),
    Column("destination", "string", "where to, as typed"),
    Column("location", "string", "the switch of the destination, if given"),
    Column("reason", "string", "the reason, from userData"),
    Column("user_data", "string", "all userData of the command, as JSON"),
    Column("outcome", "string", "what became of it"),
    Column("grade", "string", "the kind of evidence for the outcome"),
    Column("status_code", "int32", "GWS's statusCode, if it answered"),
    Column("message", "string", "GWS's message, or the cause of doubt"),
    Column(
        "requested_at",
        "timestamp",
        "when it was asked for or, if only observed, done; by GWS's clock where it tells. Filters go by it",
    ),
    Column("recorded_at", "timestamp", "when that was recorded; this and all further times by our clock"),
    Column("dispatched_at", "timestamp", "when the request left for GWS"),
    Column("answered_at", "timestamp", "when GWS's answer was recorded"),
    Column("settled_at", "timestamp", "when the outcome was concluded"),
    Column("evidence", "string", "positions of the events that show the outcome, as JSON"),
    Column("steps", "string", "each step with its position and time, as JSON"),
    Column(
        "gaps", "string", "gaps in the agent's record that overlap the transfer, as JSON; []: no known gaps"
    ),
    Column("first_position", "int64", "position of the transfer's first event"),
    Column("last_position", "int64", "position of the newest event taken in"),
)

TEXTS_OF_JSON = frozenset({"user_data", "evidence", "steps", "gaps"})


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a transfer: text, numbers, times or None; what is nested is JSON."""
    record = {column.name: row.get(column.name) for column in COLUMNS}
    record["transfer_id"] = str(row["transfer_id"])
    for name in TEXTS_OF_JSON:
        record[name] = msgspec.json.encode(row[name]).decode()
    return record


def positions(row: Mapping[str, Any]) -> list[int]:
    """The positions of the events that a transfer rests on, in the order of the log."""
    return sorted({*row["evidence"], *(step["position"] for step in row["steps"])})


def plain(value: Any) -> Any:
    """A value as JSON Lines and CSV write it."""
    return rfc3339(value) if isinstance(value, datetime) else value
