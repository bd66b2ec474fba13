from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faststream.nats import NatsBroker, TestNatsBroker
from nats.js.api import DeliverPolicy
from pydantic import SecretStr, ValidationError

from service.app import Application, open_application
from service.config import Agent, Settings
from service.errors import BadConfig
from service.log import NewEvent, Producer
from service.messaging import (
    COMMANDS,
    TransferMessage,
    TransferReply,
    open_messaging,
    relayed_stream,
)
from service.messaging.commands import carry_out, take_commands
from service.messaging.nats import embedded_nats
from service.postgres import Database
from service.simulator import Simulator

AGENTS = [Agent(user="15000", password=SecretStr("secret-15000"))]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(seed=1, agent_count=3) as running:
        yield running


@pytest.fixture
async def application(database: Database, simulator: Simulator) -> AsyncIterator[Application]:
    url = database.url.render_as_string(hide_password=False)
    async with open_application(Settings(database_url=url, gws_url=simulator.url), AGENTS) as opened:
        yield opened


def message(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"call_id": call_id, "agent": "15000", "destination": "15002", **fields}


async def test_a_command_by_message_is_answered_and_its_repetition_is_recognised(
    application: Application, simulator: Simulator, tmp_path: Path
) -> None:
    call = simulator.place_call("15001", "15000")
    simulator.answer(call.id, "15000")
    async with (
        embedded_nats(tmp_path) as url,
        open_messaging(
            url,
            prefix="calltrail",
            store=tmp_path,
            database=application.database,
            log=application.log,
            handler=application.handler,
        ),
        NatsBroker(url, logger=None) as client,
    ):
        replies = [
            TransferReply.model_validate(await response.decode())
            for response in [
                await client.request(
                    message(call.id, key="once", user_data={"TransferReason": "Billing"}),
                    COMMANDS,
                    timeout=30,
                )
                for _ in range(2)
            ]
        ]
    first, again = replies
    assert (first.state, first.status_code, first.replayed) == ("accepted", 0, False)
    assert (again.transfer_id, again.replayed) == (first.transfer_id, True)
    [executed] = simulator.truth.transfers_of(call.id)
    assert ("TransferReason", "Billing") in executed.user_data


async def test_commands_are_typed_and_refusals_name_the_field(application: Application) -> None:
    broker = NatsBroker(logger=None)
    take_commands(broker, COMMANDS, partial(carry_out, application.handler))
    async with TestNatsBroker(broker) as client:
        response = await client.request(message("c1", destination=" "), COMMANDS)
        reply = TransferReply.model_validate(await response.decode())
        assert (reply.field, reply.state) == ("destination.phoneNumber", None)
        response = await client.request(message("c1", agent="stranger"), COMMANDS)
        assert "stranger is not configured" in str((await response.decode())["error"])
        with pytest.raises(ValidationError, match="colour"):
            await client.request(message("c1", colour="red"), COMMANDS)
    assert TransferMessage.model_json_schema()["required"] == ["call_id", "agent", "destination"]


async def test_the_relay_gives_every_event_in_order_and_goes_on_after_a_restart(
    application: Application, tmp_path: Path
) -> None:
    async def append(count: int) -> None:
        events = [NewEvent(Producer.new().key, "call-1", "NotificationReceived", b"{}") for _ in range(count)]
        await application.log.append(events)

    seen: list[tuple[int, str]] = []
    moved = asyncio.Event()
    async with embedded_nats(tmp_path / "nats") as url:
        consumer = NatsBroker(url, logger=None)

        @consumer.subscriber("here.log.>", stream=relayed_stream("here"), deliver_policy=DeliverPolicy.ALL)
        async def landed(event: dict[str, Any]) -> None:
            seen.append((event["position"], event["kind"]))
            moved.set()

        async def until(count: int) -> None:
            async with asyncio.timeout(30):
                while len(seen) < count:
                    await moved.wait()
                    moved.clear()

        for total in (700, 1_000):
            await append(total - await application.log.next_position())
            async with open_messaging(
                url,
                prefix="here",
                store=tmp_path,
                database=application.database,
                log=application.log,
                handler=application.handler,
            ):
                if total == 700:
                    await consumer.start()
                await until(total)
        await consumer.stop()
    assert seen == [(position, "NotificationReceived") for position in range(1_000)]


async def test_a_broker_that_is_none_is_refused(application: Application, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="nats://"):
        async with open_messaging(
            "kafka:9092",
            prefix="x",
            store=tmp_path,
            database=application.database,
            log=application.log,
            handler=application.handler,
        ):
            pass
