from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.engine import URL
from transfer_site import QUICK, Site, open_site

from service.events import TransferDispatched, decode
from service.log import Producer
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
    first = await site.command(call.id, prefer="wait=20", key="k")
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


async def test_the_order_is_that_of_the_log_whatever_the_ids(
    database_url: URL, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(database_url, simulator, recording=False) as site:
        call = site.call(caller="15003")
        simulator.faults.add("late_answer", seconds=0.3)
        await site.command(call.id, prefer="respond-async", key="first")
        await site.recorded(f"transfer-{call.id}", lambda event: event.kind == "TransferDispatched")
        earlier, later = Producer.new(), Producer.new()
        for key, drawn in (("second", later), ("third", earlier)):
            with monkeypatch.context() as patch:
                patch.setattr("service.transfers.handler.Producer.new", lambda drawn=drawn: drawn)
                await site.command(call.id, prefer="respond-async", key=key)
        third = await site.ended(call.id)
        dispatched = [
            decoded[0].transfer_id
            for event in await site.log.read_stream(f"transfer-{call.id}")
            if isinstance((decoded := decode(event.kind, event.payload) or (None,))[0], TransferDispatched)
        ]
        assert dispatched[1:] == [later.key, earlier.key]
        assert third.id == earlier.key


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
    persistent = replace(QUICK, attempts=10)
    with nothing_listens() as taken:
        gws_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with open_site(database_url, simulator, persistent, recording=False, gws_url=gws_url) as site:
            call = site.call()
            sending = asyncio.create_task(site.post(call.id))
            await site.recorded(f"transfer-{call.id}", lambda event: event.kind == "TransferNotSent")
            relay = await asyncio.start_server(lambda r, w: relayed(r, w, simulator.port), sock=taken)
            answer = await sending
            assert answer.status == 200
            [transfer] = await site.transfers(call.id)
            assert transfer.attempts > 1
            assert site.executed(call.id) == 1
            relay.close()


@contextmanager
def nothing_listens() -> Iterator[socket.socket]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        yield taken


@contextmanager
def nobody_there(_: pytest.MonkeyPatch) -> Iterator[str]:
    with nothing_listens() as taken:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def name_unknown(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    async def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    yield "http://gws.invalid"


@contextmanager
def no_tls(_: pytest.MonkeyPatch) -> Iterator[str]:
    """What answers the TLS handshake speaks no TLS."""
    with socket.socket() as listener, ThreadPoolExecutor(1) as thread:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1024)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread.submit(answer)
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("unreachable", [nobody_there, name_unknown, no_tls])
async def test_what_cannot_reach_gws_is_tried_again_ever_later_up_to_a_bound(
    database_url: URL, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, unreachable: Any
) -> None:
    with unreachable(monkeypatch) as gws_url:
        async with open_site(database_url, simulator, recording=False, gws_url=gws_url) as site:
            answer = await site.post("call-1", key="k")
            again = await site.post("call-1", key="k")
            steps = await site.log.read_stream("transfer-call-1")
    assert (answer.status, answer.json["statusCode"]) == (503, 4)
    assert (again.status, again.transfer_id) == (503, answer.transfer_id)
    tried = ["TransferDispatched", "TransferNotSent"] * (QUICK.attempts - 1)
    assert [step.kind for step in steps] == [
        *("TransferRequested", *tried, "TransferDispatched", "TransferRejected")
    ]
    for attempt in range(1, QUICK.attempts):
        failed, next_one = steps[2 * attempt], steps[2 * attempt + 1]
        pause = timedelta(seconds=QUICK.first_pause_s * 2 ** (attempt - 1))
        assert next_one.recorded_at - failed.recorded_at >= pause
        assert b"no connection to GWS" in failed.payload


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
