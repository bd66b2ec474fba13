"""The vocabulary between the state machine and whoever runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from service.cometd.facts import Stopped


class State(StrEnum):
    """Where a session stands."""

    UNCONNECTED = "unconnected"
    HANDSHAKING = "handshaking"
    SUBSCRIBING = "subscribing"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RETRYING = "retrying"
    DISCONNECTING = "disconnecting"
    STOPPED = "stopped"


class Purpose(StrEnum):
    """What a request is for; also the last segment of its meta channel."""

    HANDSHAKE = "handshake"
    SUBSCRIBE = "subscribe"
    CONNECT = "connect"
    DISCONNECT = "disconnect"


@dataclass(frozen=True, slots=True)
class Send:
    """Send this body; its response is due within `timeout` seconds."""

    purpose: Purpose
    body: bytes = field(repr=False)
    timeout: float


@dataclass(frozen=True, slots=True)
class Listen:
    """Wait up to `timeout` seconds for one more frame that answers what was sent."""

    timeout: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """It is over: hand this to the consumer and send nothing more."""

    stopped: Stopped


Action = Send | Listen | Pause | Finish
