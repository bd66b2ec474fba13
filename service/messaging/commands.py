"""Transfer commands by message, request and reply; the same handler as over HTTP."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import BaseModel, ConfigDict, Field

from service import __version__
from service.errors import BadCommand, CalltrailError
from service.transfers import Outcome, TransferHandler, build_body, parse_command

DOOR = "message"
COMMANDS = "transfers.commands"
TITLE = "TransferCommands"
REPLIES = "TransferReplies"


class TransferMessage(BaseModel):
    """Transfer this call. `key` makes a repeated message the same command."""

    model_config = ConfigDict(extra="forbid")

    call_id: str = Field(description="The call, as notifications name it")
    agent: str = Field(description="User name of the agent who has the call")
    destination: str = Field(description="The number to transfer to")
    location: str | None = Field(default=None, description="Where the destination is, for another T-Server")
    user_data: dict[str, Any] | None = Field(
        default=None, description="Attached to the call, e.g. the reason"
    )
    key: str | None = Field(default=None, description="Idempotency key, 1 to 255 printable ASCII characters")


class TransferReply(BaseModel):
    """How the command stands. `error` is set if it was refused; then nothing was dispatched by it.

    It is also set where what became of it could not be recorded (it says so): ask again with the same key.
    """

    transfer_id: str | None = None
    call_id: str
    state: str | None = None
    replayed: bool = False
    status_code: int | None = Field(default=None, description="GWS's statusCode, if it answered")
    error: str | None = None
    field: str | None = Field(default=None, description="The field that was wrong")

    @classmethod
    def of(cls, call_id: str, outcome: Outcome) -> TransferReply:
        transfer = outcome.transfer
        return cls(
            transfer_id=str(transfer.id),
            call_id=call_id,
            state=transfer.state,
            replayed=outcome.replayed,
            status_code=transfer.answer.status_code if transfer.answer else None,
        )


Answer = Callable[[TransferMessage], Awaitable[TransferReply]]


def take_commands(broker: NatsBroker, subject: str, answer: Answer) -> None:
    """Subscribe to `subject`; each message is answered with what `answer` makes of it."""

    @broker.subscriber(subject, queue="calltrail", title=TITLE)
    async def transfer(message: TransferMessage) -> TransferReply:
        """Transfer a call. The reply comes when GWS has answered, or when no answer can be had."""
        return await answer(message)


async def carry_out(handler: TransferHandler, message: TransferMessage) -> TransferReply:
    """Hand a command to `handler`; an error of ours becomes a reply that tells of it."""
    body = build_body(message.destination, message.location, message.user_data)
    caller = f"message:{message.agent}"
    try:
        command = parse_command(
            message.call_id, body, agent=message.agent, caller=caller, door=DOOR, key=message.key
        )
        return TransferReply.of(message.call_id, await handler.transfer(command))
    except BadCommand as error:
        await handler.refuse(body, message.call_id, caller, DOOR, error)
        return TransferReply(call_id=message.call_id, error=str(error), field=error.field)
    except CalltrailError as error:
        return TransferReply(call_id=message.call_id, error=str(error))


def asyncapi_document(subject: str = COMMANDS) -> str:
    """The AsyncAPI 3 document of what is taken by message, as JSON."""

    async def nobody(_: TransferMessage) -> TransferReply:
        raise AssertionError("a document takes no commands")

    broker = NatsBroker()
    take_commands(broker, subject, nobody)
    specification = AsyncAPI(broker, title="calltrail", version=__version__).to_specification()
    document = specification.to_jsonable()
    add_reply(document)
    return json.dumps(document)


def add_reply(document: dict[str, Any]) -> None:
    """Say what is replied, and where to: FastStream's own document leaves that out (AsyncAPI 3, "reply")."""
    schema = TransferReply.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"]["TransferReply"] = schema
    message = {"title": "TransferReply", "payload": {"$ref": "#/components/schemas/TransferReply"}}
    document["components"]["messages"]["TransferReply"] = message
    document["channels"][REPLIES] = {
        "address": None,
        "description": "The reply subject that the command's message names.",
        "messages": {"TransferReply": {"$ref": "#/components/messages/TransferReply"}},
    }
    document["operations"][TITLE]["reply"] = {
        "channel": {"$ref": f"#/channels/{REPLIES}"},
        "messages": [{"$ref": f"#/channels/{REPLIES}/messages/TransferReply"}],
    }
