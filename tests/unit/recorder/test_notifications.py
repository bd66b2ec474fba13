from __future__ import annotations

import json

import pytest

from service.cometd import split
from service.config import Settings
from service.events import NotificationReceived, decode
from service.log import Producer
from service.recorder.notifications import notifications

LEAST = Settings.model_fields["max_payload_bytes"].metadata[0].ge
"""The smallest limit that the log may be given."""


@pytest.mark.parametrize(
    "element",
    [
        {"channel": "/" + "x" * (3 << 20), "data": {}},
        {"channel": "/" + "\x01" * (1 << 20), "data": {}},
        {"channel": "/v2/me/calls", "data": "y" * (3 << 20)},
    ],
)
def test_no_event_of_an_element_is_larger_than_any_log_takes_and_nothing_of_it_is_lost(
    element: dict[str, object],
) -> None:
    ids = Producer.new()
    [message] = split(json.dumps(element).encode())
    events = notifications(message, ids, 0, session=ids.key, count=0, agent="1" * 200)
    assert max(len(event.payload) for event in events) <= LEAST
    bodies = []
    for event in events:
        decoded = decode(event.kind, event.payload)
        assert decoded is not None
        assert isinstance(decoded[0], NotificationReceived)
        assert str(element["channel"]).startswith(str(decoded[0].channel))
        bodies.append(decoded[1])
    assert b"".join(bodies) == message.raw
