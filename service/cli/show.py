"""How the command line shows things: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from service.log import rfc3339

console = Console(highlight=False)
"""Colours go off by themselves when the output is no terminal, or when NO_COLOR is set."""

IDS = frozenset({"call", "transfer"})
ROOM_FOR_IDS = 100  # characters across

STATE_STYLES = {
    "Ringing": "yellow",
    "Established": "green",
    "Held": "yellow",
    "Released": "dim",
    "confirmed": "green",
    "accepted": "yellow",
    "rejected": "red",
    "failed": "red",
    "in_doubt": "bold magenta",
    "abandoned": "magenta",
}


def print_json(document: Any) -> None:
    """Write `document` to standard output; times in ISO 8601."""
    sys.stdout.write(json.dumps(document, default=plain, ensure_ascii=False, indent=2) + "\n")


def plain(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, date | UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form here")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table that fits the terminal. Where there is room, ids are not cut: they are to be copied."""
    cells = [[cell(value) for value in row] for row in rows]
    whole = IDS if cells and console.width >= ROOM_FOR_IDS else ()
    headers = [
        Column(name, min_width=max(len(row[number]) for row in cells) if name in whole else None)
        for number, name in enumerate(columns)
    ]
    table = Table(
        *headers, title=title, title_justify="left", show_edge=False, pad_edge=False, title_style="bold"
    )
    for row in cells:
        table.add_row(*row)
    console.print(table)


def cell(value: Any) -> Text:
    """A value as a table shows it. Text from outside is shown as text, whatever markup it holds."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, datetime):
        return Text(value.strftime("%Y-%m-%d %H:%M:%S"))
    if isinstance(value, list):
        return Text(", ".join(str(item) for item in value) or "-")
    if isinstance(value, Mapping):
        return Text(", ".join(f"{name}={item}" for name, item in value.items()) or "-")
    text = "".join(character if character.isprintable() else "\ufffd" for character in str(value))
    return Text(text, style=STATE_STYLES.get(text, ""))


def print_legs(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    names = ("call_id", "phone_number", "state", "participants", "from_position", "user_data")
    columns = ("call", "number", "state", "with", "since", "userData")
    print_table(title, columns, ([row[name] for name in names] for row in rows))


def print_transfers(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    names = ("transfer_id", "requested_at", "agent", "destination", "reason", "outcome")
    columns = ("transfer", "requested (UTC)", "agent", "to", "reason", "outcome")
    print_table(title, columns, ([row[name] for name in names] for row in rows))


def print_trail(transfer: Mapping[str, Any]) -> None:
    """One transfer's audit trail: who, where, why, each step, and what it rests on."""
    print_table(
        f"Transfer {transfer['transfer_id']}",
        ("", ""),
        [
            ("call", f"{transfer['call_id']}  (connId {transfer['conn_id'] or 'unknown'})"),
            (
                "who",
                f"agent {transfer['agent']}, "
                + (
                    f"observed only ({transfer['operation']})"
                    if transfer["door"] == "observed"
                    else f"commanded by {transfer['caller']} through {transfer['door']}"
                ),
            ),
            ("where", transfer["destination"]),
            ("why", transfer["reason"]),
            ("userData", transfer["user_data"]),
            ("outcome", transfer["outcome"]),
            ("because", transfer["grade"] or transfer["message"]),
            ("evidence", [f"position {position}" for position in transfer["evidence"]]),
            (
                "gaps",
                [f"{gap['kind']} from {gap['from']} to {gap['to'] or 'now'}" for gap in transfer["gaps"]]
                or "no known gaps",
            ),
        ],
    )
    columns = ("step", "position", "at", "why", "by")
    print_table("Steps", columns, ([step.get(name) for name in columns] for step in transfer["steps"]))


def print_events(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = ("position", "recorded at", "kind", "what", "changed")
    cells = ((r["position"], r["recorded_at"], r["kind"], gist(r), r.get("changed_text")) for r in rows)
    print_table(title, columns, cells)


def gist(event: Mapping[str, Any]) -> str:
    """One line that says what an event is about."""
    data = event.get("data") or {}
    if event["kind"] == "NotificationReceived":
        return f"{data.get('agent')} hears {notification_gist(event.get('body', ''))}"
    shown = {
        name: value
        for name, value in data.items()
        if name
        in {"agent", "destination", "grade", "evidence", "cause", "message", "http_status", "reason", "field"}
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def notification_gist(body: str) -> str:
    try:
        data = json.loads(body)["data"]
        call = data["call"]
        others = [p["phoneNumber"] if isinstance(p, dict) else p for p in call.get("participants", [])]
        company = ", ".join(map(str, others)) or "nobody"
        return f"{data.get('notificationType')} {call.get('state')}, with {company}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return body[:60]
