from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from program import calltrail
from telling import CALL, CALLER, tell

from service.api import problems
from service.api.redactions import redactions_router
from service.api.services import Services
from service.log import EventLog
from service.postgres import Database
from service.projections import Engine
from service.redaction import release_hold

WISH = {"call_id": CALL, "fields": ["userData.*"], "by": "dpo", "why": "request of 3 May"}


@pytest.fixture
def client(database: Database, log: EventLog, engine: Engine) -> httpx2.AsyncClient:
    app = FastAPI()
    problems.install(app)
    services = cast("Services", SimpleNamespace(database=database, log=log, engine=engine))
    app.include_router(redactions_router(services))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://log")


async def test_a_redaction_by_http_is_tried_first_and_refused_under_a_hold(
    client: httpx2.AsyncClient, log: EventLog
) -> None:
    await tell(log)
    before = await log.next_position()
    tried = await client.post("/v1/redactions", json=WISH)
    assert (tried.status_code, tried.json()["redacted"]) == (200, False)
    assert tried.json()["fields"]["data.call.userData.Name"] == 4
    assert await log.next_position() == before

    placed = await client.post(
        "/v1/holds", json={"case": "C-17", "by": "counsel", "why": "letter", "agent": "15000"}
    )
    assert placed.status_code == 201
    refused = await client.post("/v1/redactions", json={**WISH, "confirm": True})
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert problem["type"] == "urn:calltrail:problem:UnderLegalHold"
    assert (problem["case"], problem["hold_id"]) == ("C-17", placed.json()["hold_id"])

    released = await client.post(
        f"/v1/holds/{problem['hold_id']}/release", json={"by": "counsel", "why": "closed"}
    )
    assert released.status_code == 200
    [hold] = (await client.get("/v1/holds")).json()["holds"]
    assert (hold["agent"], hold["released_by"]) == ("15000", "counsel")
    done = await client.post("/v1/redactions", json={**WISH, "confirm": True, "approved_by": "head of law"})
    assert (done.status_code, done.json()["redacted"]) == (201, True)
    listed = (await client.get("/v1/redactions", params={"call_id": CALL})).json()["redactions"]
    assert [one["outcome"] for one in listed] == ["refused", "redacted"]
    assert listed[1]["approved_by"] == "head of law"
    assert (await client.get("/v1/redactions", params={"call_id": "ANOTHER"})).json()["redactions"] == []


@pytest.mark.parametrize(
    ("path", "change", "told"),
    [
        ("/v1/redactions", {"call_id": "UNKNOWN"}, (404, None)),
        ("/v1/redactions", {"fields": []}, (400, "fields")),
        ("/v1/redactions", {"fields": ["*"]}, (400, "fields")),
        ("/v1/redactions", {"fields": ["id"]}, (400, "fields")),
        ("/v1/redactions", {"by": " "}, (400, "by")),
        ("/v1/redactions", {"approved_by": "dpo"}, (400, "approved_by")),
        ("/v1/redactions", {"more": 1}, (400, "more")),
        ("/v1/holds", {}, (400, "everything")),
        ("/v1/holds", {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, (400, "until")),
        ("/v1/holds", {"since": "2026-01-02T00:00:00"}, (400, "since")),
        ("/v1/holds/01a21000-3cb7-8944-a146-2d7100000000/release", {}, (404, None)),
    ],
)
async def test_what_cannot_be_done_is_said_with_its_field(
    client: httpx2.AsyncClient, log: EventLog, path: str, change: dict[str, Any], told: tuple[int, str | None]
) -> None:
    await tell(log)
    bodies: dict[str, dict[str, Any]] = {
        "/v1/redactions": WISH,
        "/v1/holds": {"case": "C", "by": "x", "why": "y"},
    }
    answer = await client.post(path, json={**bodies.get(path, {"by": "x", "why": "y"}), **change})
    assert (answer.status_code, answer.json().get("field")) == told
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_redaction_by_command(database: Database, log: EventLog) -> None:
    await tell(log)
    wish = ("redact", "--call", CALL, "--fields", "userData.*,participants", "--why", "asked", "--by", "dpo")
    preview = await calltrail(database.url, *wish)
    assert preview.status == 0
    assert "Nothing was changed" in preview.out
    held = await calltrail(
        database.url, "hold", "add", "--case", "C-17", "--call", CALL, "--why", "letter", "--json"
    )
    hold_id = UUID(held.json["hold_id"])
    refused = await calltrail(database.url, *wish, "--yes")
    assert refused.status == 1
    assert "legal hold: case C-17" in refused.error
    await release_hold(log, hold_id, who="counsel", why="closed")
    done = await calltrail(database.url, *wish, "--yes", "--json")
    assert (done.status, done.json["redacted"]) == (0, True)
    assert CALLER.encode() not in b"".join(event.payload for event in await log.read())
