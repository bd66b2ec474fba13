"""GWS 8.5.0: a call's id is its connId, participants are strings, no metrics, and perhaps no ack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recording import agents, body_of, event_of, recorded, recording, settings_for, until

from service.gws import Answer, Call, Notification
from service.postgres import Database
from service.simulator import Simulator


def test_a_notification_in_the_old_form_is_read(sample: Callable[[str], bytes]) -> None:
    notification = Notification.parse(sample("gws850-notification"))
    assert notification is not None
    assert notification.occurred_at is None
    assert notification.phone_number == "15000"
    call = notification.call
    assert call is not None
    assert (call.id, call.participants, call.state) == ("007102719818000d", ("15001",), "Established")
    assert call.device == "631608b3-ceb1-472b-ba05-2ae39555b0d1"


def test_a_snapshot_in_the_old_form_is_read(sample: Callable[[str], bytes]) -> None:
    answer = Answer.of(200, "application/json", sample("gws850-calls"))
    assert answer.document is not None
    [call] = [Call(document) for document in answer.document["calls"]]
    assert (call.id, call.participants, call.user_data) == ("007102719818000d", ("15001",), {})


@pytest.mark.parametrize("form", ["8.5.0", "8.5.2"])
async def test_both_generations_are_recorded_byte_for_byte(
    database: Database, tmp_path: Path, sample: Callable[[str], bytes], form: str
) -> None:
    old = form == "8.5.0"
    async with (
        Simulator(seed=1, agent_count=3, form=form, ack=not old, timeout_ms=2_000) as simulator,  # type: ignore[arg-type]
        recording(settings_for(database, simulator.url, tmp_path), agents(2)) as application,
    ):
        await until(application.log, "CallsSnapshotTaken", count=2)
        call = simulator.place_call("15001", "15000")
        simulator.answer(call.id, "15000")
        simulator.inject("15000", sample("gws850-notification").rstrip())
        [session] = simulator.truth.sessions_of("15000")
        found = await until(
            application.log,
            "NotificationReceived",
            count=len(session.messages),
            fits=lambda event: event_of(event).agent == "15000",
        )
        assert await recorded(application.log) == [message.body for message in session.messages]
        assert {event.stream for event in found} == {f"call-{call.id}", "call-007102719818000d"}
        assert (call.id == call.conn_id) is old
        opened = await until(application.log, "SessionOpened", count=2)
        assert all(event_of(event).ack is not old for event in opened)
        simulator.kill_session("15000")
        snapshot = (await until(application.log, "CallsSnapshotTaken", count=3))[-1]
        document = Answer.of(200, "", body_of(snapshot)).document
        assert document is not None
        assert [Call(one).id for one in document["calls"]] == [call.id]
