from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faststream.nats import NatsBroker, TestNatsBroker
from pydantic import ValidationError
from transfer_site import Site

from service.messaging import COMMANDS, TransferMessage, TransferReply, asyncapi_document, open_messaging
from service.messaging.commands import carry_out, take_commands
from service.transfers import State


async def test_a_command_by_message_in_memory(site: Site) -> None:
    call = await site.seen_call()
    broker = NatsBroker()
    take_commands(broker, COMMANDS, partial(carry_out, site.handler))
    message = TransferMessage(call_id=call.id, agent="15000", destination="15002", key="k")
    async with TestNatsBroker(broker) as memory:
        replies = []
        for _ in range(2):
            response = await memory.request(message, COMMANDS)
            replies.append(TransferReply.model_validate(await response.decode()))
        with pytest.raises(ValidationError):
            await memory.request({"call_id": call.id}, COMMANDS)
    first, again = replies
    assert first.status_code == 0
    assert not first.replayed
    assert again.replayed
    assert again.transfer_id == first.transfer_id
    assert site.executed(call.id) == 1


async def test_commands_by_message_on_a_real_broker(site: Site, tmp_path: Path) -> None:
    call, other = await site.seen_call(), await site.seen_call("15000", "15003")
    async with (
        open_messaging(
            "embedded",
            prefix="test",
            store=tmp_path,
            database=site.database,
            log=site.log,
            handler=site.handler,
        ) as messaging,
        NatsBroker(messaging.url, logger=None) as broker,
    ):

        async def ask(message: TransferMessage) -> TransferReply:
            response = await broker.request(message, COMMANDS, timeout=30)
            return TransferReply.model_validate(await response.decode())

        good = TransferMessage(call_id=call.id, agent="15000", destination="15002", key="k")
        assert (await ask(good)).state in {State.ACCEPTED, State.CONFIRMED}
        assert (await ask(good)).replayed
        reused = await ask(good.model_copy(update={"destination": "15003"}))
        assert "Idempotency-Key" in (reused.error or "")
        wrong = await ask(TransferMessage(call_id=other.id, agent="15000", destination=" "))
        assert wrong.field == "destination.phoneNumber"
        assert await site.kinds(other.id) == ["CommandRefused"]
        unknown = await ask(TransferMessage(call_id=other.id, agent="nobody", destination="15002"))
        assert "nobody" in (unknown.error or "")
    assert (site.executed(call.id), site.executed(other.id)) == (1, 0)


def test_the_asyncapi_document_tells_of_the_command() -> None:
    document = json.loads(asyncapi_document())
    assert document["asyncapi"].startswith("3.")
    assert any(COMMANDS in channel["address"] for channel in document["channels"].values())
    assert document["components"]["schemas"]["TransferMessage"]["required"] == [
        "call_id",
        "agent",
        "destination",
    ]


def test_the_asyncapi_document_tells_of_the_reply() -> None:
    document = json.loads(asyncapi_document())
    [operation] = document["operations"].values()
    assert resolve(document, operation["reply"]["channel"])["address"] is None
    [message] = operation["reply"]["messages"]
    payload = resolve(document, resolve(document, resolve(document, message))["payload"])
    assert payload["properties"].keys() == TransferReply.model_fields.keys()


def resolve(document: Any, reference: dict[str, str]) -> Any:
    found = document
    for part in reference["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found
