from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from faststream.nats import NatsBroker, NatsMessage
from httpx2 import ASGITransport, AsyncClient
from projecting import append, caught_up

from service.api import problems
from service.api.events import document
from service.api.projections import projections_router
from service.api.replay import replay_router, stretch
from service.cli.replay_commands import publishing, step_through
from service.errors import BadInput, NotFound
from service.events import CallsSnapshotTaken, encode, session_stream
from service.log import EventLog, NewEvent, Producer
from service.messaging.nats import embedded_nats
from service.postgres import Database
from service.projections import Engine, Queries, call_story, catalogue, difference_between, in_tempo
from service.projections.histories import Session, notification


async def folded(database: Database, log: EventLog) -> Engine:
    running = Engine(database, log, catalogue())
    running.loop.start()
    await caught_up(running, log)
    await running.loop.stop()
    return running


async def test_each_step_of_a_story_shows_the_legs_as_of_its_position(
    database: Database, log: EventLog
) -> None:
    await append(log, 400)
    await folded(database, log)
    queries = Queries(database)
    call_id = (await log.at([200]))[0].stream.partition("-")[2]
    story = await call_story(log, queries, call_id)
    assert [step.event.position for step in story] == sorted(step.event.position for step in story)
    for step in story:
        rows = await queries.legs(as_of=step.event.position, call_id=call_id)
        assert {row["device"]: row["state"] for row in rows} == {
            device: leg["state"] for device, leg in step.legs.items()
        }
    changes = [change["state"] for step in story for change in step.changed.values() if "state" in change]
    assert (None, "Ringing") in changes
    assert ("Ringing", "Established") in changes


async def test_a_story_tells_of_the_snapshot_that_ended_a_call(database: Database, log: EventLog) -> None:
    session = Session("15000")
    heard = session.hears(notification("15000", "c", "Established", ["7001"], {}), "c")
    after_gap = Producer.new()
    snapshot = CallsSnapshotTaken(
        session=after_gap.key, agent="15000", at=(await log_now(database)), http_status=200
    )
    payload = encode(snapshot, b'{"statusCode":0,"calls":[]}')
    stream = session_stream(after_gap.key)
    await log.append([heard, NewEvent(Producer.new().key, stream, snapshot.kind(), payload)])
    await folded(database, log)
    story = await call_story(log, Queries(database), "c")
    assert [step.event.kind for step in story] == ["NotificationReceived", "CallsSnapshotTaken"]
    assert story[1].changed["device-15000"]["state"] == ("Established", "Released")
    assert "unknown" in story[1].legs["device-15000"]["doubt"]


async def log_now(database: Database) -> Any:
    return await database.pool.fetchval("SELECT now()")


async def test_an_unknown_call_has_no_story(database: Database, log: EventLog) -> None:
    await folded(database, log) if await append(log, 5) else None
    with pytest.raises(NotFound, match="nothing is recorded"):
        await call_story(log, Queries(database), "no-such-call")


async def test_two_moments_differ_in_what_happened_between_them(database: Database, log: EventLog) -> None:
    await append(log, 400)
    await folded(database, log)
    queries = Queries(database)
    found = await difference_between(queries, 100, 300)
    assert {one.what for one in found} <= {"appeared", "gone", "changed"}
    live = [{(row["call_id"], row["device"]) for row in await queries.legs(as_of=at)} for at in (100, 300)]
    by_what = {
        what: {(one.call_id, one.device) for one in found if one.what == what}
        for what in ("appeared", "gone")
    }
    assert by_what == {"appeared": live[1] - live[0], "gone": live[0] - live[1]}
    assert await difference_between(queries, 100, 100) == []
    assert {one.what for one in await difference_between(queries, -1, 100)} == {"appeared"}


async def test_history_is_told_in_its_own_tempo_and_faster(log: EventLog, database: Database) -> None:
    for seed in range(3):
        await append(log, 4, seed=seed)
        await database.pool.fetchval("SELECT pg_sleep(0.05)")
    recorded = [one.recorded_at for one in await log.read()]
    whole = (recorded[-1] - recorded[0]).total_seconds()
    for speed in (1.0, 10.0):
        began = asyncio.get_running_loop().time()
        told = [one.position async for one in in_tempo(log, after=-1, upto=11, speed=speed)]
        took = asyncio.get_running_loop().time() - began
        assert told == list(range(12))
        assert took >= whole / speed
    waits: list[float] = []

    async def count(seconds: float) -> None:
        waits.append(seconds)

    assert len([one async for one in in_tempo(log, after=3, upto=9, speed=0, sleep=count)]) == 6
    assert waits == []


async def test_a_stretch_of_history_is_named_by_positions_or_times(log: EventLog) -> None:
    await append(log, 10)
    times = [one.recorded_at for one in await log.read()]
    assert await stretch(log, None, None) == (-1, 9)
    assert await stretch(log, "3", "5") == (2, 5)
    assert await stretch(log, "2020-01-01T00:00:00Z", times[-1].isoformat()) == (-1, 9)
    for since, until in (("7", "3"), ("99", None), ("yesterday", None)):
        with pytest.raises(BadInput):
            await stretch(log, since, until)


async def test_the_api_tells_stories_differences_and_history(database: Database, log: EventLog) -> None:
    await append(log, 60)
    engine = await folded(database, log)

    class Parts:
        pass

    parts: Any = Parts()
    parts.log, parts.engine, parts.queries = log, engine, Queries(database)
    app = FastAPI()
    problems.install(app)
    app.include_router(replay_router(parts))
    app.include_router(projections_router(parts))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        call_id = (await log.at([30]))[0].stream.partition("-")[2]
        story = (await client.get(f"/v1/calls/{call_id}/story")).json()
        assert story["steps"][0]["changed"]["device-" + story["steps"][0]["data"]["agent"]]["state"] == {
            "before": None,
            "after": "Ringing",
        }
        assert (await client.get("/v1/calls/none/story")).status_code == 404
        assert (await client.get("/v1/diff", params={"first": "1", "second": "50"})).json()["differences"]
        assert (await client.get("/v1/diff", params={"first": "1", "second": "5000"})).status_code == 400
        told = (await client.get("/v1/replay", params={"since": "10", "until": "12", "speed": 0})).text
        assert [line for line in told.splitlines() if line.startswith("id:")] == [
            "id: 10",
            "id: 11",
            "id: 12",
        ]
        views = (await client.get("/v1/projections")).json()["projections"]
        assert {view["name"] for view in views} == set(engine.projections)
        assert {view["lag_events"] for view in views} == {0}
        assert (await client.get("/v1/coverage/15000")).json()["spans"] == []


async def test_keys_step_forward_and_back(
    database: Database, log: EventLog, capsys: pytest.CaptureFixture[str]
) -> None:
    await append(log, 200)
    await folded(database, log)
    call_id = (await log.at([50]))[0].stream.partition("-")[2]
    steps = await call_story(log, Queries(database), call_id)
    keys = iter([" ", "n", "b", "b", "b", "$", "n", "0", "q"])
    step_through(steps, lambda: next(keys))
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if f"/{len(steps)} " in line]
    last = len(steps)
    assert [int(one.partition("/")[0]) for one in shown] == [1, 2, 3, 2, 1, 1, last, last, 1]


async def test_history_is_replayed_to_a_subject_of_a_real_broker(
    database: Database, log: EventLog, tmp_path: Path
) -> None:
    await append(log, 30)
    told: asyncio.Queue[tuple[str, str, int]] = asyncio.Queue()
    async with embedded_nats(tmp_path) as url:
        other = NatsBroker(url, logger=None)

        @other.subscriber("yesterday.>")
        async def debugged(event: dict[str, Any], message: NatsMessage) -> None:
            told.put_nowait((message.raw_message.subject, message.headers["Nats-Msg-Id"], event["position"]))

        async with other:
            await other.start()
            async with publishing(url, "yesterday") as publish:
                assert publish is not None
                async for event in in_tempo(log, after=9, upto=19, speed=0):
                    await publish(document(event))
            async with asyncio.timeout(20):
                heard = [await told.get() for _ in range(10)]
    expected = [one for one in await log.read() if 9 < one.position <= 19]
    assert heard == [(f"yesterday.{one.kind}", str(one.position), one.position) for one in expected]
    assert told.empty()
