"""The API as its OpenAPI document tells it: the document is whole, and every answer is as it says."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.api import create_api, moments
from service.api.serving import serving
from service.app import open_application
from service.config import Settings
from service.postgres import Database
from service.projections.histories import Histories

LEFT_OUT = {
    "GET /v1/replay": "tells history in its own tempo, and may take as long",
    "POST /v1/exports": "makes a file each time; see the audit's tests",
}
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EACH = 6  # requests of each mode to each operation
EACH_IN_LONG = 100
EVENTS = 200


@dataclass(frozen=True)
class Api:
    """A served API over a log with some calls."""

    url: str
    http: aiohttp.ClientSession
    document: dict[str, Any]

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                yield method.upper(), path, operation


@pytest.fixture
async def api(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr(moments, "WAIT_FOR_VIEW_S", 0.05)
    url = database.url.render_as_string(hide_password=False)
    chosen = Settings(database_url=url, data_dir=tmp_path, max_request_bytes=5_000)
    async with (
        open_application(chosen, agents=[]) as application,
        serving(create_api(application.services), "127.0.0.1", 0) as served,
        aiohttp.ClientSession() as http,
    ):
        await application.log.append(list(itertools.islice(Histories(live=4, agents=5).events(), EVENTS)))
        application.engine.loop.start()
        assert await application.engine.reached(EVENTS - 1, timeout_s=60)
        async with http.get(f"{served}/openapi.json") as response:
            document = await response.json()
        yield Api(served, http, document)
        await application.engine.loop.stop()


async def test_any_request_is_answered_as_the_document_says(api: Api, pytestconfig: pytest.Config) -> None:
    each = EACH_IN_LONG if pytestconfig.getoption("--long") else EACH

    def ask_all() -> int:
        schema = schemathesis.openapi.from_dict(api.document)
        asked = 0
        for method, path, _ in api.operations():
            if f"{method} {path}" in LEFT_OUT:
                continue
            for mode in MODES:

                @settings(
                    max_examples=each, deadline=None, database=None, suppress_health_check=list(HealthCheck)
                )
                @given(case=schema[path][method].as_strategy(generation_mode=mode))
                def ask(case: Any) -> None:
                    nonlocal asked
                    asked += 1
                    response = case.call(base_url=api.url)
                    case.validate_response(response, checks=CHECKS)

                with suppress(Unsatisfiable if mode is MODES[1] else ()):  # nothing can be wrong with some
                    ask()
        return asked

    assert await asyncio.to_thread(ask_all) > 100


async def test_the_document_is_whole(api: Api) -> None:
    operations = list(api.operations())
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(ids) == len(set(ids))
    for reference in references(api.document):
        found: Any = api.document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    for method, path, operation in operations:
        assert operation["summary"], path
        for status, answer in operation["responses"].items():
            assert status == "304" or all("schema" in one for one in answer["content"].values()), (
                path,
                status,
            )
        if method == "POST":
            assert examples_of(api.document, operation["requestBody"]["content"]["application/json"]), path
        for name in ("min_position", "as_of", "call_id", "transfer_id"):
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == name:
                    assert "example" in json.dumps(parameter), (path, name)


def references(part: Any) -> Iterator[str]:
    for name, value in part.items() if isinstance(part, dict) else enumerate(part):
        if name == "$ref":
            yield value
        elif isinstance(value, dict | list):
            yield from references(value)


def examples_of(document: dict[str, Any], content: dict[str, Any]) -> Any:
    schema = content["schema"]
    named = schema.get("$ref", "").rpartition("/")[2]
    schema = document["components"]["schemas"][named] if named else schema
    return content.get("example") or schema.get("examples")


async def test_a_client_that_knows_only_the_document_can_use_it(api: Api) -> None:
    """Ids and parameters come from the document, never from a path written here."""
    by_id = {operation["operationId"]: (method, path) for method, path, operation in api.operations()}

    async def call(
        purpose: str, parameters: dict[str, str] | None = None, body: Any = None
    ) -> tuple[int, Any]:
        method, path = by_id[purpose]
        async with api.http.request(method, api.url + path.format(**parameters or {}), json=body) as response:
            return response.status, await response.json(content_type=None)

    status, listed = await call("calls")
    assert (status, bool(listed["calls"])) == (200, True)
    call_id = listed["calls"][0]["call_id"]
    status, told = await call("history", {"call_id": call_id})
    assert f"call-{call_id}" in {event["stream"] for event in told["events"]}
    [_, path] = by_id["place"]
    content = api.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    status, placed = await call("place", body=examples_of(api.document, content)[0])
    assert (status, set(placed)) == (201, {"hold_id"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/no/such/route", 404),
        ("DELETE", "/v1/calls", 405),
        ("GET", "/v1/calls/nobody-made-it", 404),
        ("GET", "/v1/calls?as_of=yesterday", 400),
        ("GET", "/v1/events?limit=0", 400),
        ("GET", "/v1/events/99999999999999999999", 400),
        ("POST", "/v1/holds", 400),
        ("POST", "/api/v2/me/calls/x", 403),
        ("GET", "/v1/calls/a%00b", 400),
        ("GET", "/v1/calls?agent=a%00b", 400),
        ("GET", "/v1/calls/a%00b/history", 400),
        ("GET", "/v1/coverage?min_position=999999", 404),
    ],
)
async def test_every_error_is_a_problem(api: Api, method: str, path: str, status: int) -> None:
    async with api.http.request(method, api.url + path) as response:
        problem = await response.json()
        assert response.content_type == "application/problem+json"
    assert (response.status, problem["status"]) == (status, status)
    assert {"type", "title"} <= problem.keys()


@pytest.mark.parametrize("unstorable", ["a\0b", "\ud800"])
@pytest.mark.parametrize("field", ["call_id", "by", "fields"])
async def test_text_that_postgres_cannot_hold_is_named(api: Api, field: str, unstorable: str) -> None:
    order: dict[str, Any] = {"call_id": "c", "fields": ["userData.*"], "by": "Ada", "why": "asked"}
    order[field] = [unstorable] if field == "fields" else unstorable
    async with api.http.post(f"{api.url}/v1/redactions", json=order) as response:
        problem = await response.json()
    assert (response.status, problem["field"].partition(".")[0]) == (400, field)


async def test_what_has_not_changed_is_not_sent_again(api: Api) -> None:
    tags = set()
    paths = ("/v1/calls", "/v1/events?limit=5", "/v1/transfers", "/v1/holds", "/openapi.json")
    for path in paths:
        async with api.http.get(api.url + path) as first:
            tag, body = first.headers["ETag"], await first.read()
        tags.add(tag)
        async with api.http.get(api.url + path, headers={"If-None-Match": f'"other", {tag}'}) as again:
            assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", tag)
        async with api.http.get(api.url + path, headers={"If-None-Match": '"other"'}) as other:
            assert (other.status, await other.read()) == (200, body)
    assert len(tags) == len(paths)


async def test_large_answers_are_compressed(api: Api) -> None:
    async with api.http.get(f"{api.url}/v1/events") as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert len((await response.json())["events"]) == 100


async def test_links_lead_through_the_whole_log(api: Api) -> None:
    url, positions = f"{api.url}/v1/events?limit=70", list[int]()
    while url:
        async with api.http.get(url) as response:
            positions += [event["position"] for event in (await response.json())["events"]]
            url = str(response.links["next"]["url"]) if "next" in response.links else ""
    assert positions == list(range(EVENTS))


async def test_an_event_stream_goes_on_where_it_broke_off(api: Api) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(EVENTS - 3)}
    async with asyncio.timeout(20), api.http.get(f"{api.url}/v1/events", headers=headers) as response:
        assert response.content_type == "text/event-stream"
        ids = []
        async for line in response.content:
            if line.startswith(b"id: "):
                ids.append(int(line[4:]))
            if len(ids) == 2:
                break
    assert ids == [EVENTS - 2, EVENTS - 1]
