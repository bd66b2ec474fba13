"""A Bayeux 1.0 client for a consumer that must not lose anything.

It speaks to CometD's servers from 3 to 8 and to those made after them, over long polling and WebSocket,
with or without the acknowledgement extension, and it needs aiohttp and nothing else.

The parts, from the inside out:

- `framing` cuts a response body into messages, each with its verbatim bytes;
- `advice` reads what the server advises;
- `session` is the protocol as a state machine without sockets: told what happened, it says what to do next
  (its rules for the start are in `opening`, the steps that all rules share in `moves`);
- `transport` is the seam, with `LongPolling` and `WebSocket` behind it, and `Cookies` beside them;
- `client` runs a session over a transport and hands `facts` to its consumer, one at a time, in order:
  deliveries of events, and whatever bears on their being complete (`Opened`, `Lost`, `PossibleGap`, ...).

`Client` states the contract with the consumer.
"""

from service.cometd.actions import Purpose, State
from service.cometd.advice import Advice
from service.cometd.client import Client
from service.cometd.cookies import Cookies
from service.cometd.facts import (
    Delivery,
    Evidence,
    Failing,
    Item,
    Lost,
    MultipleClients,
    Opened,
    PossibleGap,
    Refused,
    Resumed,
    ResumeState,
    Stopped,
)
from service.cometd.framing import Message, split
from service.cometd.longpolling import LongPolling, shared_http
from service.cometd.patience import Timing
from service.cometd.session import Session
from service.cometd.transport import Credentials, Transport
from service.cometd.websocket import WebSocket

__all__ = [
    "Advice",
    "Client",
    "Cookies",
    "Credentials",
    "Delivery",
    "Evidence",
    "Failing",
    "Item",
    "LongPolling",
    "Lost",
    "Message",
    "MultipleClients",
    "Opened",
    "PossibleGap",
    "Purpose",
    "Refused",
    "ResumeState",
    "Resumed",
    "Session",
    "State",
    "Stopped",
    "Timing",
    "Transport",
    "WebSocket",
    "shared_http",
    "split",
]
