"""``/``: the calls that are live, how the recording does, and whether the record is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.analytics import Statement
from service.api.moments import resolve
from service.api.services import Services
from service.projections import calls_of
from service.projections.queries import legs_query
from service.recorder import list_sessions
from service.web.copying import curl, sql
from service.web.frame import Frame, asked
from service.web.integrity import Verifications, checkpoints

MOST_CALLS = 100
MOST_SESSIONS = 20


def now_page(services: Services, frame: Frame, verifications: Verifications) -> APIRouter:
    router = frame.router()

    @router.get("/")
    async def now(request: Request) -> Response:
        as_of, agent = asked(request, "as_of"), asked(request, "agent")
        data = await now_data(services, verifications, as_of, agent)
        statement, arguments = legs_query(data["position"], None, agent, include_over=False)
        ways = [
            curl(request, "/v1/calls", [("as_of", as_of), ("agent", agent)]),
            sql(Statement(statement, tuple(arguments))),
        ]
        return frame.page(request, "now.html", {**data, "ways": ways, "live": as_of is None})

    return router


async def now_data(
    services: Services, verifications: Verifications, as_of: str | None = None, agent: str | None = None
) -> dict[str, Any]:
    """All that the page shows; the calls as of a moment, the rest as it is."""
    position = await resolve(services.log, as_of)
    legs = await services.queries.legs(as_of=position, agent=agent)
    calls = calls_of(legs)
    sessions = await list_sessions(services.database)
    views = await services.engine.status()
    return {
        "as_of": as_of,
        "agent": agent,
        "position": position,
        "head": await services.log.next_position() - 1,
        "calls": calls[-MOST_CALLS:][::-1],
        "call_count": len(calls),
        "leg_count": len(legs),
        "session_count": len(sessions),
        "session_states": Counter(session["status"] for session in sessions),
        "sessions": troubled(sessions)[:MOST_SESSIONS],
        "views": views,
        "lag_events": max((view["lag_events"] for view in views), default=0),
        "lag_seconds": max((view["lag_seconds"] for view in views), default=0.0),
        "checkpoint": next(iter(await checkpoints(services, 1)), None),
        "verification": await verifications.last(),
    }


def troubled(sessions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sessions that are not open."""
    return [session for session in sessions if session["status"] != "open"]
