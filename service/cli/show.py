"""How the command line shows things: tables for people, JSON for programs, CSV for spreadsheets."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.api.tables import to_csv
from service.log import rfc3339

UNBOUNDED = 100_000  # characters across
console = Console(highlight=False, width=None if sys.stdout.isatty() else UNBOUNDED)
"""Colours go off by themselves when NO_COLOR is set, or in a pipe, where nothing is cut either."""

IDS = frozenset({"call", "transfer", "device", "hold"})
ROOM_FOR_IDS = 100  # characters across
SHORTEST_ID, TAIL = 18, 4
SEPARATOR = 2
NARROWEST = 8  # of a column that is wrapped
LONGEST_WORD = 20

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


def print_list(
    rows: Sequence[Mapping[str, Any]],
    table: Callable[[], None],
    *,
    document: Mapping[str, Any],
    nothing: str,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Write a list as it was asked for: `document`, or all that `rows` hold, or `table`.

    `nothing` is what a person is told where there are no rows.
    """
    if as_json:
        print_json(document)
    elif as_csv:
        sys.stdout.write(to_csv(rows).decode())
    elif rows:
        table()
    else:
        console.print(nothing)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table that fits the terminal: long text is wrapped; ids, times and single words are not.

    Where the terminal is too narrow even so, everything is wrapped.
    """
    values = list(rows)
    cells = [[cell(value) for value in row] for row in values]
    if console.width < ROOM_FOR_IDS:
        shorten_ids(columns, cells)
    widths = widths_of(columns, cells)
    whole = [
        name in IDS
        or all(
            len(row[number]) <= LONGEST_WORD or isinstance(value[number], datetime)
            for row, value in zip(cells, values, strict=True)
        )
        for number, name in enumerate(columns)
    ]
    least = sum(width if keep else NARROWEST for width, keep in zip(widths, whole, strict=True))
    fits = least + SEPARATOR * (len(widths) - 1) <= console.width
    table = Table(
        title=title,
        show_header=any(columns),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    for name, keep in zip(columns, whole, strict=True):
        table.add_column(name, no_wrap=keep and fits, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def shorten_ids(columns: Sequence[str], cells: Sequence[list[Text]]) -> None:
    """Shorten ids as far as the terminal's width demands, in the middle: neighbours often begin alike."""
    widths = widths_of(columns, cells)
    excess = sum(widths) + SEPARATOR * (len(widths) - 1) - console.width
    ids = [number for number, name in enumerate(columns) if name in IDS]
    for left, number in zip(range(len(ids), 0, -1), ids, strict=True):
        room = min(widths[number], max(SHORTEST_ID, widths[number] - max(0, -(-excess // left))))
        excess -= widths[number] - room
        for row in cells:
            row[number] = shortened(row[number], room)


def widths_of(columns: Sequence[str], cells: Sequence[Sequence[Text]]) -> list[int]:
    """What each column would take if nothing were wrapped."""
    return [max(map(len, column)) for column in zip(map(Text, columns), *cells, strict=True)]


def shortened(text: Text, room: int) -> Text:
    """An id in no more than `room` characters: its beginning and its end."""
    return text if len(text) <= room else Text.assemble(text[: room - TAIL - 1], "…", text[-TAIL:])


def moment(text: str | None) -> datetime | None:
    """A time as documents have it (RFC 3339)."""
    return None if text is None else datetime.fromisoformat(text)


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
        f"Transfer {transfer['transfer_id']}"
        + ("" if transfer.get("as_of") is None else f" as of position {transfer['as_of']}"),
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
    steps = [{**step, "at": moment(step["at"])} for step in transfer["steps"]]
    print_table("Steps", columns, ([step.get(name) for name in columns] for step in steps))


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
