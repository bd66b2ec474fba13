from __future__ import annotations

import asyncio
import socket

from sqlalchemy.engine import URL
from transfer_site import Site, open_site

from service.simulator import Simulator
from service.transfers import State


async def test_respond_async_is_queued_and_done(site: Site) -> None:
    call = await site.seen_call()
    answer = await site.command(call.id, prefer="respond-async", userData={"TransferReason": "Callback"})
    assert answer.status == 202
    assert answer.json["state"] == "requested"
    assert answer.headers["Location"] == f"/v1/transfers/{answer.transfer_id}"
    assert (await site.ended(call.id)).state is State.CONFIRMED
    assert site.executed(call.id) == 1


async def test_wait_gives_the_outcome_and_a_repetition_the_same_bytes(site: Site) -> None:
    call = await site.seen_call()
    first = await site.command(call.id, prefer="wait=5", key="k")
    await site.ended(call.id)
    again = await site.command(call.id, key="k")
    assert (first.status, first.json["state"], first.json["status_code"]) == (201, "accepted", 0)
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert site.executed(call.id) == 1


async def test_transfers_of_one_call_go_one_at_a_time_and_in_order(site: Site) -> None:
    call = await site.seen_call()
    site.simulator.faults.add("late_answer", seconds=0.3)
    answers = [
        await site.command(call.id, to, prefer="respond-async", key=to) for to in ("15002", "15003", "15002x")
    ]
    assert [answer.status for answer in answers[:2]] == [202, 202]
    await site.recorded(f"transfer-{call.id}", lambda event: event.kind == "TransferRejected")
    kinds = [kind for kind in await site.kinds(call.id) if kind in {"TransferDispatched", "TransferAccepted"}]
    assert kinds[:3] == ["TransferDispatched", "TransferAccepted", "TransferDispatched"]
    assert site.executed(call.id) == 1  # the second finds the call gone


async def test_two_workers_send_each_once(database_url: URL, simulator: Simulator) -> None:
    async with (
        open_site(database_url, simulator, recording=False) as one,
        open_site(database_url, simulator, recording=False),
    ):
        calls = [one.call(caller="15003") for _ in range(40)]
        await asyncio.gather(*(one.command(call.id, prefer="respond-async") for call in calls))
        for call in calls:
            await one.ended(call.id)
            assert one.executed(call.id) == 1
            assert (await one.kinds(call.id)).count("TransferDispatched") == 1


async def test_what_was_certainly_not_sent_is_tried_again_until_gws_is_there(
    database_url: URL, simulator: Simulator
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with open_site(
        database_url, simulator, recording=False, gws_url=f"http://127.0.0.1:{port}"
    ) as site:
        call = site.call()
        refused = await site.post(call.id)
        assert (refused.status, refused.json["statusCode"]) == (503, 4)
        [first] = await site.transfers(call.id)
        assert (first.state, first.attempts) == (State.REJECTED, 3)
        sending = asyncio.create_task(site.post(call.id))
        await site.recorded(
            f"transfer-{call.id}",
            lambda event: event.kind == "TransferNotSent" and str(first.id) not in event.payload.decode(),
        )
        relay = await asyncio.start_server(lambda r, w: relayed(r, w, simulator.port), "127.0.0.1", port)
        answer = await sending
        assert answer.status == 200
        [_, second] = await site.transfers(call.id)
        assert second.attempts > 1
        assert site.executed(call.id) == 1
        relay.close()


async def relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer))


async def test_a_person_settles_by_api(site: Site) -> None:
    call = await site.seen_call()
    site.simulator.faults.add("late_answer", seconds=0.2)
    queued = await site.command(call.id, prefer="respond-async", key="a")
    path = f"/v1/transfers/{queued.transfer_id}/settlement"
    wrong = await site.send(
        path, b'{"outcome":"maybe","by":"W","why":"x"}', {"Content-Type": "application/json"}
    )
    assert (wrong.status, wrong.json["field"]) == (400, "outcome")
    await site.ended(call.id)
    late = await site.send(
        path, b'{"outcome":"failed","by":"W","why":"x"}', {"Content-Type": "application/json"}
    )
    assert (late.status, late.json["type"]) == (409, "urn:calltrail:problem:TransferSettled")
