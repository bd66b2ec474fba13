"""``/trust``: why the record can be believed, where it has gaps, and a way to test a file against it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.background import BackgroundTask

from service.analytics import Statement
from service.api.services import Services
from service.errors import BadInput
from service.log.checkpoints import load_keys
from service.projections.coverage import COMPLETE
from service.redaction import list_redactions
from service.web.copying import curl, sql
from service.web.frame import Frame, asked
from service.web.integrity import CHECKPOINTS, Verifications, checkpoints
from service.web.proving import judge, uploaded_file

MOST_AGENTS = 60
MOST_GAPS = 50
MOST_REDACTIONS = 50


def trust_page(services: Services, frame: Frame, verifications: Verifications) -> APIRouter:
    router = frame.router()

    @router.get("/trust")
    async def trust(request: Request) -> Response:
        agent = asked(request, "agent")
        data = await trust_data(services, verifications, agent)
        ways = [
            curl(request, f"/v1/coverage/{agent}" if agent else "/v1/coverage"),
            sql(Statement(CHECKPOINTS, (20,))),
        ]
        return frame.page(request, "trust.html", {**data, "ways": ways, "live": True})

    @router.post("/trust/verification")
    async def verify(request: Request) -> Response:
        check_origin(request)
        return RedirectResponse("/trust#verification", 303, background=BackgroundTask(verifications.run))

    @router.post("/trust/file")
    async def file(request: Request) -> Response:
        check_origin(request)
        verdict = await judge(await uploaded_file(request), services)
        return frame.page(request, "verdict.html", {"verdict": verdict})

    return router


def check_origin(request: Request) -> None:
    """Refuse what another site's page makes a browser send.

    Raises:
        BadInput: the browser says that it is so.

    """
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise BadInput("Sec-Fetch-Site", "says that another site sent this", "Use the form on /trust")


class Piece(NamedTuple):
    """A span of an agent's record as drawn: 0 is the left edge, 1 the right."""

    kind: str
    x: float
    width: float
    span: dict[str, Any]


class Strip(NamedTuple):
    """An agent's coverage. `share` is of the time since the agent's record began."""

    agent: str
    share: float
    gaps: list[dict[str, Any]]
    pieces: list[Piece]


async def trust_data(
    services: Services, verifications: Verifications, agent: str | None = None
) -> dict[str, Any]:
    """All that the page shows; the coverage of all agents, or of one."""
    if agent is None:
        coverages = await services.queries.coverages()
    else:
        coverages = [{"agent": agent, "spans": await services.queries.coverage(agent)}]
    known = [one for one in coverages if one["spans"]]
    now = datetime.now(UTC).replace(microsecond=0)
    begun = min((beginning(one["spans"][0]) for one in known), default=now)
    strips = sorted(
        (strip(one["agent"], one["spans"], begun, now) for one in known),
        key=lambda one: (one.share, one.agent),
    )
    gaps = sorted(
        ({**gap, "agent": one.agent} for one in strips for gap in one.gaps),
        key=lambda gap: gap["from"],
        reverse=True,
    )
    kept = await checkpoints(services)
    return {
        "agent": agent,
        "head": await services.log.next_position() - 1,
        "checkpoints": kept,
        "keys": [key.encode() for key in load_keys(services.settings.data_dir).trusted],
        "verification": await verifications.last(),
        "progress": verifications.progress,
        "failed": verifications.failed,
        "begun": begun,
        "now": now,
        "strips": strips[:MOST_AGENTS],
        "agent_count": len(strips),
        "whole_count": sum(not one.gaps for one in strips),
        "gaps": gaps[:MOST_GAPS],
        "gap_count": len(gaps),
        "redactions": (await list_redactions(services.log))[: -MOST_REDACTIONS - 1 : -1],
    }


def strip(agent: str, spans: Sequence[dict[str, Any]], begun: datetime, now: datetime) -> Strip:
    """An agent's spans on the time from `begun` to `now`."""
    scale = max((now - begun).total_seconds(), 1.0)
    pieces, gaps = [], []
    covered = total = 0.0
    for span in spans:
        since, until = beginning(span), min(ending(span, now), now)
        seconds = max((until - since).total_seconds(), 0.0)
        total += seconds
        if span["kind"] == COMPLETE:
            covered += seconds
        else:
            gaps.append({**span, "seconds": seconds})
        x = (since - begun).total_seconds() / scale
        pieces.append(Piece(span["kind"], x, min(seconds / scale, 1 - x), span))
    return Strip(agent, covered / total if total else 0.0, gaps, pieces)


def beginning(span: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(span["from"])


def ending(span: dict[str, Any], now: datetime) -> datetime:
    return datetime.fromisoformat(span["to"]) if span["to"] else now
