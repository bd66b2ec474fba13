"""The filter of transfers as the fields of a form."""

from __future__ import annotations

from typing import Any

from service.analytics import TransferFilter

FLAGS = ("in_doubt", "overlaps_gap", "ping_pong")
FIELDS = ("since", "until", "agent", "destination", "reason", "outcome", "commanded", "data", *FLAGS)


def form_of(wanted: TransferFilter, fields: tuple[str, ...] = FIELDS) -> dict[str, Any]:
    """What a form shows.

    `values` has each of its `fields`, None where nothing is restricted; `others` are restrictions for which
    it has no field, to be kept or taken off; `given` is all of them.
    """
    values: dict[str, str | None] = dict.fromkeys(fields)
    others = []
    for name, value in wanted.as_query():
        if name in values and values[name] is None:
            values[name] = value
        else:
            others.append((name, value))
    return {"given": wanted.as_query(), "values": values, "others": others}
