"""The FastStream application: commands by message and the ordered relay of the log."""

from service.messaging.application import COMMANDS, EMBEDDED, Messaging, open_messaging
from service.messaging.commands import TransferMessage, TransferReply
from service.messaging.relay import Relay, relayed_stream

__all__ = [
    "COMMANDS",
    "EMBEDDED",
    "Messaging",
    "Relay",
    "TransferMessage",
    "TransferReply",
    "open_messaging",
    "relayed_stream",
]
