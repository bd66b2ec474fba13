"""How pages say things: times, numbers, states, and what an event tells, in a few words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from markupsafe import Markup

from service.events import readable
from service.gws import Notification
from service.gws.dialect import OVER
from service.log import StoredEvent, rfc3339

STATES = {"Ringing": "open", "Dialing": "open", "Held": "open"}
OUTCOMES = {
    "confirmed": "",
    "observed": "",
    "recalled": "warn",
    "in_doubt": "warn",
    "contradicted": "warn",
    "abandoned": "warn",
    "failed": "bad",
    "rejected": "bad",
}
SHOWN = ("destination", "grade", "cause", "message", "why", "reason", "field", "problem", "status_code")
"""What of an event's fields is worth a line, in this order."""


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def moment(value: datetime | str | None) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def when(value: datetime | str | None) -> Markup | str:
    """A date and time to the second."""
    at = moment(value)
    return "" if at is None else stamped(at, f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}")


def clock(value: datetime | str | None) -> Markup | str:
    """A time of day to the millisecond."""
    at = moment(value)
    return "" if at is None else stamped(at, f"{at.astimezone(UTC):%H:%M:%S.%f}"[:-3])


def stamped(at: datetime, text: str) -> Markup:
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(rfc3339(at.astimezone(UTC)), text)


def duration(seconds: float | None) -> str:
    """``0.32 s``, ``48 s``, ``3 min 07 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    for size, below, name, part in ((60, 3_600, "min", "s"), (3_600, 86_400, "h", "min")):
        if whole < size:
            return f"{whole} s"
        if whole < below:
            return f"{whole // size} {name} {whole % size // (size // 60):02} {part}"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def short(identifier: object) -> str:
    """The end of a long id: that is where ids of one site differ."""
    text = str(identifier)
    return text if len(text) <= 12 else f"…{text[-9:]}"


def plain(value: object) -> str:
    """A value of userData, which may be any JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def state_mark(state: str | None) -> str:
    """The class of a leg's state."""
    return "over" if state in OVER else STATES.get(state or "", "" if state else "warn")


def outcome_mark(outcome: str) -> str:
    """The class of a transfer's outcome; one that is under way is open."""
    return OUTCOMES.get(outcome, "open")


def urlpart(value: str) -> str:
    return quote(value, safe="")


def spoken(name: str) -> str:
    """``TransferInDoubt`` → ``Transfer in doubt``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).capitalize()


def told(event: StoredEvent) -> dict[str, str]:
    """What an event says: `what` it is, and `more` about it."""
    payload = readable(event.payload)
    data = payload["data"] if isinstance(payload["data"], dict) else {}
    if event.kind == "NotificationReceived":
        notification = Notification.parse(event.payload.partition(b"\n")[2])
        if notification is not None and notification.call is not None:
            call = notification.call
            who = notification.phone_number or data.get("agent") or "somebody"
            why = notification.notification_type
            company = ", ".join(call.participants)
            return {
                "what": f"{who} {call.state or ''}".strip(),
                "more": ", ".join(
                    filter(None, (why and spoken(why), f"with {company}" if company else "alone"))
                ),
            }
    more = [
        f"to {data[name]}" if name == "destination" else str(data[name])
        for name in SHOWN
        if data.get(name) not in (None, "")
    ]
    return {"what": spoken(event.kind), "more": ", ".join(more)}


def document_text(values: Mapping[str, Any]) -> str:
    """Plain values as JSON to read."""
    return msgspec.json.format(msgspec.json.encode(values), indent=2).decode()


FILTERS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (
        number,
        share,
        when,
        clock,
        duration,
        short,
        plain,
        state_mark,
        outcome_mark,
        urlpart,
        spoken,
        document_text,
    )
}
