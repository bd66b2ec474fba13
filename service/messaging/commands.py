"""Transfer commands by message, request and reply; the same handler as over HTTP."""

from __future__ import annotations

from typing import Any

from faststream.nats import NatsBroker
from pydantic import BaseModel, ConfigDict, Field

from service.errors import BadCommand, CalltrailError
from service.transfers import Outcome, TransferHandler, build_body, parse_command

DOOR = "message"


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
    """How the command stands. `error` is set if it was refused; then nothing was dispatched by it."""

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


def take_commands(broker: NatsBroker, subject: str, handler: TransferHandler) -> None:
    """Subscribe `handler` to `subject`; each message is answered with a `TransferReply`."""

    @broker.subscriber(subject, queue="calltrail", title="TransferCommands")
    async def transfer(message: TransferMessage) -> TransferReply:
        """Transfer a call. The reply comes when GWS has answered, or when no answer can be had."""
        body = build_body(message.destination, message.location, message.user_data)
        try:
            command = parse_command(
                message.call_id,
                body,
                agent=message.agent,
                caller=f"message:{message.agent}",
                door=DOOR,
                key=message.key,
            )
            return TransferReply.of(message.call_id, await handler.transfer(command))
        except BadCommand as error:
            await handler.refuse(body, message.call_id, f"message:{message.agent}", DOOR, error)
            return TransferReply(call_id=message.call_id, error=str(error), field=error.field)
        except CalltrailError as error:
            return TransferReply(call_id=message.call_id, error=str(error))
