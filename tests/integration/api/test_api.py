from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from service.api import create_api
from service.api.serving import serving
from service.app import Application, check_host, open_application, running
from service.config import Agent, Settings
from service.errors import BadConfig
from service.postgres import Database
from service.projections import catalogue
from service.simulator import Simulator

AGENTS = [Agent(user=user, password=SecretStr(f"secret-{user}")) for user in ("15000", "15001", "15002")]
DEADLINE_S = 20.0
FIRST, SECOND = "01RCC3N118B1V0SL8O7GK2LAES00000D", "01RCC3N118B1V0SL8O7GK2LAES00000G"


@dataclass
class Service:
    """A running service in front of a simulated GWS, and an HTTP client for it."""

    application: Application
    simulator: Simulator
    url: str
    http: aiohttp.ClientSession

    async def post(self, call_id: str, body: bytes, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        async with self.http.post(
            f"{self.url}/api/v2/me/calls/{call_id}",
            data=body,
            headers={"Authorization": aiohttp.encode_basic_auth("15000", "secret-15000"), **headers},
        ) as response:
            return response.status, await response.read(), response.headers

    async def get(self, path: str, status: int = 200) -> Any:
        async with self.http.get(self.url + path) as response:
            assert response.status == status, await response.text()
            return await response.json(content_type=None)

    async def recorded(self, kind: str, text: bytes = b"", count: int = 1) -> int:
        """Wait for events of a kind whose payload holds a text; the last one's position."""
        found = 0
        async with asyncio.timeout(DEADLINE_S):
            async for page in self.application.log.follow(after=-1):
                for event in page:
                    found += event.kind == kind and text in event.payload.replace(b" ", b"")
                    if found == count:
                        return event.position
        raise AssertionError


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with Simulator(seed=1, agent_count=3, timeout_ms=2_000) as simulator:
        url = database.url.render_as_string(hide_password=False)
        settings = Settings(
            database_url=url,
            gws_url=simulator.url,
            settle_window_s=1,
            gws_timeout_s=20,
            max_request_bytes=2_000,
        )
        async with (
            open_application(settings, AGENTS) as application,
            running(application),
            serving(create_api(application.services), "127.0.0.1", 0) as served,
            aiohttp.ClientSession() as http,
        ):
            opened = Service(application, simulator, served, http)
            await opened.recorded("SessionOpened", count=3)
            simulator.place_sample_calls()
            for call_id in (FIRST, SECOND):
                await opened.recorded(
                    "NotificationReceived", b'%s","state":"Established"' % call_id.encode(), 2
                )
            yield opened


@pytest.mark.parametrize(("number", "call_id"), [(1, FIRST), (2, SECOND)])
async def test_a_sample_goes_through_the_whole_path_and_comes_back_equal(
    service: Service, sample: Callable[[str], bytes], number: int, call_id: str
) -> None:
    request = sample(f"sample{number}-request")
    before = await service.application.log.next_position() - 1
    status, answer, headers = await service.post(call_id, request)
    assert (status, answer) == (200, sample(f"sample{number}-response"))
    end = await service.recorded("TransferConfirmed")
    trail = await service.get(f"/v1/transfers/{headers['Calltrail-Transfer']}?min_position={end}")
    assert trail["outcome"] == "confirmed"
    assert [step["step"] for step in trail["steps"]] == ["requested", "dispatched", "accepted", "confirmed"]
    assert trail["agent"] == "15000"
    assert trail["destination"] == "15002"
    if number == 2:
        assert trail["reason"] == "Escalation"
        assert trail["user_data"] == {"TransferReason": "Escalation", "TransferAgent": "WillardC"}
    history = (await service.get(f"/v1/calls/{call_id}/history"))["events"]
    bodies = {event["kind"]: event["body"].encode() for event in history if "body" in event}
    assert bodies["TransferRequested"] == request
    assert bodies["TransferAccepted"] == sample(f"sample{number}-response")
    said = [event["body"].encode() for event in history if event["kind"] == "NotificationReceived"]
    assert sample(f"sample{number}-notification").rstrip() in said
    evidence = await service.get(f"/v1/events/{trail['evidence'][0]}")
    shown = json.loads(evidence["body"])["data"]
    assert (shown["phoneNumber"], shown["call"]["state"]) in {("15000", "Released"), ("15002", "Ringing")}
    assert len(service.simulator.truth.transfers_of(call_id)) == 1
    then = await service.get(f"/v1/calls/{call_id}?as_of={before}")
    assert {leg["phone_number"]: leg["state"] for leg in then["legs"]}["15000"] == "Established"
    now = await service.get(f"/v1/calls/{call_id}?min_position={end}")
    assert {leg["phone_number"]: leg["state"] for leg in now["legs"]}["15000"] == "Released"


async def test_as_of_takes_a_time_as_well_as_a_position(service: Service) -> None:
    events = (await service.get("/v1/events?limit=1000"))["events"]
    last = events[-1]
    await service.get(f"/v1/calls?min_position={last['position']}")
    moment = last["recorded_at"].replace("+00:00", "Z")
    by_time = await service.get(f"/v1/calls?as_of={moment}")
    by_position = await service.get(f"/v1/calls?as_of={by_time['as_of']}")
    assert by_time == by_position
    assert {call["call_id"] for call in by_time["calls"]} == {FIRST, SECOND}
    assert (await service.get("/v1/calls?as_of=2000-01-01"))["calls"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"[" * 1_500, "body"),
        (b"\xff\xfe", "body"),
        (b" " * 3_000, "body"),
        (b"{}", "operationName"),
        (b'{"operationName":"Hangup"}', "operationName"),
        (b'{"operationName":7}', "operationName"),
        (b'{"operationName":"SingleStepTransfer"}', "destination"),
        (b'{"operationName":"SingleStepTransfer","destination":"15002"}', "destination"),
        (b'{"operationName":"SingleStepTransfer","destination":{}}', "destination.phoneNumber"),
        (
            b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":15002}}',
            "destination.phoneNumber",
        ),
        (
            b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":" "}}',
            "destination.phoneNumber",
        ),
        (
            b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":"\\ud800"}}',
            "destination.phoneNumber",
        ),
        (
            b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":"1"},"userData":[]}',
            "userData",
        ),
        (
            b'{"operationName":"SingleStepTransfer","destination":{"phoneNumber":"1"},"location":1}',
            "location",
        ),
    ],
)
async def test_bad_input_names_the_field_dispatches_nothing_and_is_recorded(
    service: Service, body: bytes, field: str
) -> None:
    status, answer, _ = await service.post(FIRST, body)
    problem = json.loads(answer)
    assert (status, problem["field"], problem["statusCode"]) == (400, field, 2)
    position = await service.recorded("CommandRefused")
    refused = await service.get(f"/v1/events/{position}")
    assert refused["data"]["field"] == field
    assert refused["stream"] == f"transfer-{FIRST}"
    assert service.simulator.truth.commands == []


@pytest.mark.parametrize(
    "authorization", [None, "Basic ?", "Bearer x", "Basic MTUwMDA6d3Jvbmc=", "Basic eDp5"]
)
async def test_who_is_not_a_configured_agent_is_refused_as_gws_does(
    service: Service, sample: Callable[[str], bytes], authorization: str | None
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    async with service.http.post(
        f"{service.url}/api/v2/me/calls/{FIRST}", data=sample("sample1-request"), headers=headers
    ) as response:
        assert response.status == 403
        assert (await response.json(content_type=None))["statusCode"] == 20
    assert service.simulator.truth.commands == []


@pytest.mark.parametrize(
    ("path", "status", "problem"),
    [
        ("/v1/calls/unknown", 404, "NotFound"),
        ("/v1/calls/unknown/history", 404, "NotFound"),
        ("/v1/events/999999", 404, "NotFound"),
        ("/v1/transfers/00000000-0000-0000-0000-000000000000", 404, "NotFound"),
        ("/v1/transfers/nonsense", 400, "BadInput"),
        ("/v1/calls?as_of=999999", 400, "BadInput"),
        ("/v1/calls?as_of=yesterday", 400, "BadInput"),
        ("/v1/events?limit=0", 400, "BadInput"),
        ("/v1/transfers?since=never", 400, "BadInput"),
    ],
)
async def test_errors_are_problem_details(service: Service, path: str, status: int, problem: str) -> None:
    document = await service.get(path, status)
    assert document["type"] == f"urn:calltrail:problem:{problem}"
    assert document["status"] == status
    assert document["detail"]


async def test_transfers_can_be_filtered(service: Service, sample: Callable[[str], bytes]) -> None:
    await service.post(FIRST, sample("sample1-request"))
    await service.post(SECOND, sample("sample2-request"))
    end = await service.recorded("TransferConfirmed", count=2)
    found = await service.get(f"/v1/transfers?min_position={end}")
    assert [one["call_id"] for one in found["transfers"]] == [SECOND, FIRST]
    for query, calls in (
        ("reason=Escalation", [SECOND]),
        ("call_id=" + FIRST, [FIRST]),
        ("agent=15001", []),
        ("outcome=confirmed&destination=15002&limit=1", [SECOND]),
        ("since=2100-01-01", []),
        ("until=2100-01-01T00:00:00Z", [SECOND, FIRST]),
    ):
        found = await service.get(f"/v1/transfers?{query}")
        assert [one["call_id"] for one in found["transfers"]] == calls, query


async def test_events_follow_as_server_sent_events_and_go_on_where_they_broke_off(service: Service) -> None:
    async def read(count: int, **headers: str) -> list[int]:
        accept = {"Accept": "text/event-stream", **headers}
        found: list[int] = []
        async with service.http.get(f"{service.url}/v1/events", headers=accept) as response:
            async for line in response.content:
                if line.startswith(b"id: "):
                    found.append(int(line[4:]))
                if len(found) == count:
                    return found
        raise AssertionError

    assert await read(5) == [0, 1, 2, 3, 4]
    assert await read(3, **{"Last-Event-ID": "4"}) == [5, 6, 7]


async def test_pages_of_events_have_no_holes(service: Service) -> None:
    positions: list[int] = []
    after = -1
    while page := (await service.get(f"/v1/events?after={after}&limit=4"))["events"]:
        positions += [event["position"] for event in page]
        after = page[-1]["position"]
    assert positions == list(range(len(positions)))


async def test_coverage_is_told_for_every_agent(service: Service) -> None:
    head = (await service.get("/v1/events?limit=1"))["head"]
    await service.get(f"/v1/calls?min_position={head}")
    agents = (await service.get("/v1/coverage"))["agents"]
    assert [one["agent"] for one in agents] == ["15000", "15001", "15002"]
    for one in agents:
        assert (await service.get(f"/v1/coverage/{one['agent']}"))["spans"] == one["spans"]


async def test_the_service_says_that_it_is_well(service: Service) -> None:
    await service.application.engine.loop.ready.wait()
    health = await service.get("/healthz")
    assert health["status"] == "ok"
    assert set(health["projections"]) == {projection.name for projection in catalogue()}


def test_it_listens_beyond_loopback_only_if_told_to() -> None:
    with pytest.raises(BadConfig, match="--insecure"):
        check_host(Settings(host="0.0.0.0"))
    check_host(Settings(host="0.0.0.0", insecure=True))


async def test_an_export_is_a_file_and_an_event(service: Service) -> None:
    async with service.http.post(
        f"{service.url}/v1/exports", json={"format": "csv", "by": "Ada"}
    ) as response:
        assert response.status == 200
        assert response.headers["Content-Disposition"] == 'attachment; filename="transfers.csv"'
        body, position = await response.read(), int(response.headers["Calltrail-Position"])
    assert body.startswith(b"\xef\xbb\xbftransfer_id,")
    [event] = await service.application.log.at([position])
    assert (event.kind, event.stream) == ("AuditExported", "audit")
    async with service.http.post(f"{service.url}/v1/exports", json={"format": "csv"}) as response:
        assert response.status == 400
        assert (await response.json(content_type=None))["field"] == "by"
