"""The requests of a session, and the ids by which their replies are known."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.cometd.actions import Purpose


@dataclass(frozen=True, slots=True)
class Request:
    """What is under way. `ids` are in the order of the channels for a subscribe.

    `steady`: a connect that the server holds until it has events, or its time is over.
    """

    purpose: Purpose
    ids: tuple[str, ...]
    sent_at: float
    deadline: float
    steady: bool


class Writer:
    """Writes the bodies of a session's requests, each message with an id of its own.

    A successor of the session must not repeat ids, since servers file batches by them: they begin by chance.
    """

    __slots__ = ("_last_id",)

    def __init__(self, rng: random.Random) -> None:
        self._last_id = rng.getrandbits(40)

    def write(
        self, purpose: Purpose, messages: Sequence[dict[str, Any]], client_id: str | None
    ) -> tuple[tuple[str, ...], bytes]:
        """Complete the messages; return their ids, and the body."""
        ids = []
        for message in messages:
            self._last_id += 1
            ids.append(str(self._last_id))
            message["id"] = ids[-1]
            message["channel"] = f"/meta/{purpose}"
            if client_id is not None:
                message["clientId"] = client_id
        return tuple(ids), json.dumps(messages, separators=(",", ":")).encode()


def hello(connection_type: str) -> list[dict[str, Any]]:
    """Return the message of a handshake."""
    return [
        {
            "version": "1.0",
            "minimumVersion": "1.0",
            "supportedConnectionTypes": [connection_type],
            "ext": {"ack": True},
        }
    ]


def subscriptions(channels: Sequence[str]) -> list[dict[str, Any]]:
    """Return a message for each channel: the server grants or refuses a message as a whole."""
    return [{"subscription": channel} for channel in channels]


def poll(connection_type: str, *, ack: int | None, held: bool) -> list[dict[str, Any]]:
    """Return the message of a connect; one that is not to be held shows at once whether the session lives."""
    message: dict[str, Any] = {"connectionType": connection_type}
    if not held:
        message["advice"] = {"timeout": 0}
    if ack is not None:
        message["ext"] = {"ack": ack}
    return [message]
