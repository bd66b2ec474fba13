from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.engine import URL
from transfer_site import QUICK, Site, open_site

from service.gws import GwsClient
from service.simulator import Simulator
from service.transfers import State


async def test_the_samples_are_answered_byte_for_byte(site: Site, sample: Any) -> None:
    calls = site.simulator.place_sample_calls()
    for call, name in zip(calls, ("sample1", "sample2"), strict=True):
        answer = await site.post(call.id, sample(f"{name}-request"))
        assert (answer.status, answer.body) == (200, sample(f"{name}-response"))
        [command] = [c for c in site.simulator.truth.commands if c.call_id == call.id]
        assert command.body == sample(f"{name}-request")
        transfer = await site.ended(call.id)
        assert transfer.state is State.CONFIRMED
        assert site.executed(call.id) == 1


async def test_a_transfer_takes_two_commits(site: Site) -> None:
    call = await site.seen_call()
    await site.post(call.id)
    await site.ended(call.id)
    stored = await site.log.read_stream(f"transfer-{call.id}")
    assert [event.kind for event in stored] == [
        "TransferRequested",
        "TransferDispatched",
        "TransferAccepted",
        "TransferConfirmed",
    ]
    assert stored[0].recorded_at == stored[1].recorded_at  # one transaction
    assert stored[1].recorded_at < stored[2].recorded_at


@pytest.mark.parametrize(("first", "again"), [("k-1", "k-1"), ('"k-2"', "k-2"), (" k-3", '"k-3"')])
async def test_a_repeated_key_replays_the_answer(site: Site, first: str, again: str) -> None:
    call = site.call()
    answered = await site.post(call.id, GOOD + b"}", key=first)
    spaced = b'{ "destination": {"phoneNumber": "15002"},\n "operationName": "SingleStepTransfer" }'
    repeated = await site.post(call.id, spaced, key=again)
    assert repeated.body == answered.body
    assert repeated.status == answered.status
    assert repeated.headers["Content-Type"] == answered.headers["Content-Type"]
    assert repeated.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in answered.headers
    assert repeated.transfer_id == answered.transfer_id
    assert site.executed(call.id) == 1


async def test_a_refusal_is_replayed_too(site: Site) -> None:
    call = site.call()
    site.simulator.faults.add("reject", status_code=5, text="no permission")
    answered = await site.post(call.id, key="k")
    repeated = await site.post(call.id, key="k")
    assert answered.json["statusCode"] == 5
    assert (repeated.status, repeated.body) == (answered.status, answered.body)
    assert len(site.simulator.truth.commands) == 1
    assert (await site.transfers(call.id))[0].state is State.REJECTED


async def test_a_key_belongs_to_one_request(site: Site) -> None:
    call, other = site.call(), site.call("15003")
    await site.post(call.id, key="k")
    for refused in (
        await site.post(call.id, key="k", to="15003"),
        await site.post(other.id, key="k", to="15002"),
    ):
        assert refused.status == 422
        assert refused.json["type"].endswith("KeyReused")
    assert (await site.post(other.id, key="k", agent="15003")).status == 200  # another caller's key
    assert (site.executed(call.id), site.executed(other.id)) == (1, 1)


async def test_a_running_one_is_waited_for_and_then_409(
    database_url: URL, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = asyncio.Event()
    command_call = GwsClient.command_call

    async def held(*arguments: Any, **more: Any) -> Any:
        answer = await command_call(*arguments, **more)
        await let_go.wait()
        return answer

    monkeypatch.setattr(GwsClient, "command_call", held)
    async with open_site(database_url, simulator, replace(QUICK, wait_s=0.1), recording=False) as site:
        call = site.call()
        first = asyncio.create_task(site.post(call.id, key="k"))
        await simulator.until(lambda: simulator.truth.commands)
        busy = await site.post(call.id, key="k")
        assert busy.status == 409
        assert int(busy.headers["Retry-After"]) > 0
        assert busy.json["type"].endswith("KeyBusy")
        let_go.set()
        answered = await first
        assert (await site.post(call.id, key="k")).body == answered.body
        assert site.executed(call.id) == 1


async def test_64_at_once_with_one_key_are_one_transfer(site: Site) -> None:
    call = site.call()
    site.simulator.faults.add("late_answer", seconds=0.2)
    answers = await asyncio.gather(*(site.post(call.id, key="k") for _ in range(64)))
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert len({answer.transfer_id for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert len(site.simulator.truth.commands) == 1
    kinds = await site.kinds(call.id)  # held back, certainly not sent, by a process that was slow: sent later
    assert kinds.count("TransferDispatched") - kinds.count("TransferNotSent") == 1


async def test_without_a_key_a_second_click_is_the_same_and_another_destination_is_refused(
    database_url: URL, simulator: Simulator
) -> None:
    async with open_site(database_url, simulator, settling=False) as site:  # what is not settled is live
        call = site.call()
        simulator.faults.add("late_answer", seconds=0.3)
        first = asyncio.create_task(site.post(call.id))
        await simulator.until(lambda: simulator.truth.commands)
        elsewhere = await site.post(call.id, to="15003")
        assert (elsewhere.status, elsewhere.json["type"]) == (409, "urn:calltrail:problem:CallBusy")
        click = await site.post(call.id)
        assert click.body == (await first).body
        assert click.headers["Idempotent-Replayed"] == "true"
        assert site.executed(call.id) == 1


async def test_in_doubt_is_said_and_nothing_is_sent_again(database_url: URL, simulator: Simulator) -> None:
    async with open_site(database_url, simulator, settling=False) as site:
        call = site.call()
        simulator.faults.add("drop_before_execution")
        first = await site.post(call.id, key="k")
        again = await site.post(call.id, key="k")
        for answer in (first, again):
            assert answer.status == 202
            assert answer.headers["Location"] == f"/v1/transfers/{first.transfer_id}"
            assert answer.json["statusCode"] == 9
        site.settler.loop.start()
        transfer = await site.ended(call.id)
        assert transfer.state is State.FAILED
        settled = await site.post(call.id, key="k")
        assert (settled.status, settled.json["statusCode"]) == (500, 4)
        assert len(simulator.truth.commands) == 1
        assert site.executed(call.id) == 0


@pytest.mark.parametrize("executed", [True, False])
async def test_an_answer_in_doubt_is_passed_on_as_it_is(site: Site, executed: bool) -> None:  # noqa: FBT001
    call = site.call()
    site.simulator.faults.add("http_502", executed=executed)
    first = await site.post(call.id, key="k")
    assert first.status == 502
    assert first.body.startswith(b"<html>")
    transfer = await site.ended(call.id)
    assert transfer.state is (State.CONFIRMED if executed else State.FAILED)
    again = await site.post(call.id, key="k")
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Calltrail-State"] == transfer.state
    assert site.executed(call.id) == executed


async def test_a_replay_outlives_the_process(database_url: URL, simulator: Simulator) -> None:
    async with open_site(database_url, simulator, recording=False) as site:
        call = site.call()
        first = await site.post(call.id, key="k")
    async with open_site(database_url, simulator, recording=False) as restarted:
        again = await restarted.post(call.id, key="k")
        assert (again.status, again.body) == (first.status, first.body)
        assert again.transfer_id == first.transfer_id
        assert len(simulator.truth.commands) == 1


async def test_two_processes_race_for_one_key_and_one_call(database_url: URL, simulator: Simulator) -> None:
    async with (
        open_site(database_url, simulator, recording=False) as one,
        open_site(database_url, simulator, recording=False) as two,
    ):
        for number in range(10):
            call = one.call(caller="15003")
            key = f"k-{number}" if number % 2 else None
            answers = await asyncio.gather(
                *(site.post(call.id, key=key) for site in (one, two) for _ in range(4))
            )
            assert len({answer.transfer_id for answer in answers}) == 1
            assert {answer.status for answer in answers} == {200}
            assert one.executed(call.id) == 1


async def test_wrong_credentials_get_gws_own_refusal(site: Site) -> None:
    call = site.call()
    path = f"/api/v2/me/calls/{call.id}"
    for basic in (None, ("15000", "wrong"), ("nobody", "secret-nobody")):
        answer = await site.send(path, b"{}", {}, basic)
        assert (answer.status, answer.json["statusCode"]) == (403, 20)
    for header in ("Basic", "Basic !", "Basic " + "é" * 9, "Bearer x", "basic MTUwMDA="):
        answer = await site.send(path, b"{}", {"Authorization": header})
        assert (answer.status, answer.json["statusCode"]) == (403, 20)
    assert await site.kinds(call.id) == []


START = b'{"operationName":"SingleStepTransfer"'
GOOD = START + b',"destination":{"phoneNumber":"15002"}'


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"\xff\xfe{", "body"),
        (b"[1]", "body"),
        (b"null", "body"),
        (b'{"a":NaN}', "body"),
        (b"[" * 100_000, "body"),
        (b"{}", "operationName"),
        (b'{"operationName":7}', "operationName"),
        (b'{"operationName":"Hold"}', "operationName"),
        (START + b"}", "destination"),
        (START + b',"destination":"15002"}', "destination"),
        (START + b',"destination":{}}', "destination.phoneNumber"),
        (START + b',"destination":{"phoneNumber":""}}', "destination.phoneNumber"),
        (START + b',"destination":{"phoneNumber":"  "}}', "destination.phoneNumber"),
        (START + b',"destination":{"phoneNumber":15002}}', "destination.phoneNumber"),
        (START + b',"destination":{"phoneNumber":"1\\u0000"}}', "destination.phoneNumber"),
        (START + b',"destination":{"phoneNumber":"\\ud800"}}', "destination.phoneNumber"),
        (START + b',"destination":{"phoneNumber":"' + b"1" * 257 + b'"}}', "destination.phoneNumber"),
        (START + b',"destination":{"phoneNumber":"1","phoneNumber":"2"}}', "destination"),
        (GOOD + b',"destination":{"phoneNumber":"15003"}}', "body"),
        (GOOD + b',"location":7}', "location"),
        (GOOD + b',"location":""}', "location"),
        (GOOD + b',"userData":[]}', "userData"),
        (GOOD + b',"userData":"x"}', "userData"),
        (GOOD + b',"userData":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}", "body"),
        (GOOD + b',"userData":{"a":"' + b"x" * 300_000 + b'"}}', "body"),
        (GOOD + b',"userData":{"a":' + b"9" * 5_000 + b"}}", "body"),
    ],
)
async def test_a_wrong_field_is_named_and_recorded(site_without_gws: Site, body: bytes, field: str) -> None:
    site = site_without_gws
    answer = await site.post("call-1", body)
    assert answer.status == 400
    assert answer.json["field"] == field
    assert answer.json["statusCode"] == 2
    [refused] = await site.log.read_stream("transfer-call-1")
    assert refused.kind == "CommandRefused"
    assert refused.payload.partition(b"\n")[2] == body[: 256 << 10]


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "\t\t", "schlüssel"])
async def test_a_wrong_key_is_refused(site_without_gws: Site, key: str) -> None:
    answer = await site_without_gws.post("call-1", key=key)
    assert answer.status == 400
    assert answer.json["field"] == "Idempotency-Key"


@pytest.mark.parametrize("call_id", ["%00", "x" * 191, "%ff", "a%0Ab", "%F0%9F%98%80"])
async def test_any_call_id_gets_an_answer(site: Site, call_id: str) -> None:
    answer = await site.post(call_id)
    assert answer.status in {400, 404}
    assert answer.json["statusCode"] in {2, 6}


USER_DATA = {
    "nested": {"a": {"b": [1, {"c": None}]}, "d": 1.5},
    "many": {f"key-{number}": number for number in range(10_000)},
    "non-BMP": {"smile": "\U0001f600", "\U00010348": "x"},
    "NUL": {"a\0b": "c\0d"},
}


@pytest.mark.parametrize("name", USER_DATA)
async def test_user_data_of_every_kind_passes_as_it_is(site: Site, name: str) -> None:
    body = json.dumps(
        {
            "operationName": "SingleStepTransfer",
            "destination": {"phoneNumber": "15002"},
            "userData": USER_DATA[name],
        },
        ensure_ascii=name != "non-BMP",
    ).encode()
    call = site.call()
    assert (await site.post(call.id, body, key="k")).status == 200
    assert (await site.post(call.id, body, key="k")).headers["Idempotent-Replayed"] == "true"
    assert site.simulator.truth.commands[0].body == body
    assert (await site.ended(call.id)).state is State.CONFIRMED
    assert dict(site.simulator.truth.transfers[0].user_data) == USER_DATA[name]


@pytest.mark.parametrize(
    "user_data",
    [b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b'{"a":1e999}', b'{"a":123456789012345678901234567890}'],
)
async def test_what_has_no_canonical_form_counts_by_its_bytes(site: Site, user_data: bytes) -> None:
    call = site.call()
    body = GOOD + b',"userData":' + user_data + b"}"
    answer = await site.post(call.id, body, key="k")
    assert site.simulator.truth.commands[0].body == body  # what GWS makes of it is GWS's
    assert answer.status < 500
    assert (await site.post(call.id, body, key="k")).body == answer.body
    assert (await site.post(call.id, body + b" ", key="k")).status == 422
    assert (await site.log.read_stream(f"transfer-{call.id}"))[0].payload.endswith(b"\n" + body)


async def test_gws_decides_on_calls_that_do_not_allow_it_and_the_trail_says_so(site: Site) -> None:
    ringing = site.simulator.place_call("15001", "15000")
    await site.recorded(f"call-{ringing.id}", lambda event: b'"15000"' in event.payload)
    foreign = await site.seen_call("15003")
    own = await site.seen_call("15000", "15003")
    for call_id, to, code, warned in (
        (ringing.id, "15002", 3, "the leg's capabilities do not include SingleStepTransfer"),
        ("unknown", "15002", 6, "nothing is recorded of this agent's leg of the call"),
        (foreign.id, "15002", 6, "nothing is recorded of this agent's leg of the call"),
        (own.id, "15000", 2, "the destination is the agent's own number"),
    ):
        answer = await site.post(call_id, to=to)
        assert answer.json["statusCode"] == code, call_id
        [transfer] = await site.transfers(call_id)
        assert transfer.state is State.REJECTED
        assert warned in transfer.request.warnings
        assert site.executed(call_id) == 0
