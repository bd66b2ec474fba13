"""Where the other pages of a list are (RFC 8288)."""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import URL


def links(request: Request, parameter: str, **places: object) -> str:
    """The ``Link`` header: for each relation this URL with `parameter` set to its place.

    A relation whose place is None is left out; one whose place is "" has no `parameter`, as the first page.
    """
    here = URL(scope={**request.scope, "headers": [], "server": None}).remove_query_params(parameter)
    return ", ".join(
        f'<{here.include_query_params(**{parameter: place}) if place != "" else here}>; rel="{relation}"'
        for relation, place in places.items()
        if place is not None
    )
