"""The FastStream application: commands by message and the ordered relay of the log."""

from service.messaging.application import EMBEDDED, Messaging, open_messaging
from service.messaging.commands import COMMANDS, TransferMessage, TransferReply, asyncapi_document
from service.messaging.relay import Relay, relayed_stream

__all__ = [
    "COMMANDS",
    "EMBEDDED",
    "Messaging",
    "Relay",
    "TransferMessage",
    "TransferReply",
    "asyncapi_document",
    "open_messaging",
    "relayed_stream",
]
