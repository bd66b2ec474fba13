from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import events
from service.events import catalogue
from service.log import Producer

SESSION = Producer.new().key


@given(st.binary())
def test_the_body_comes_back_byte_for_byte(body: bytes) -> None:
    event = events.NotificationReceived(session=SESSION, agent="15000", count=3, channel="/v2/me/calls")
    assert events.decode(event.kind(), events.encode(event, body)) == (event, body)


@pytest.mark.parametrize("kind", events.CATALOGUE.values(), ids=lambda kind: str(kind.__name__))
def test_every_kind_is_documented_and_survives_the_log(kind: type[events.Event]) -> None:
    assert kind.__doc__
    example = msgspec.convert(
        {
            field.encode_name: example_of(field.type)
            for field in msgspec.structs.fields(kind)
            if field.required
        },
        kind,
    )
    assert events.decode(kind.kind(), events.encode(example)) == (example, b"")
    assert events.encode(example).startswith(b'{"v":1,')


def example_of(wanted: object) -> object:
    if wanted is UUID:
        return str(SESSION)
    if wanted is datetime:
        return datetime(2026, 11, 24, tzinfo=UTC).isoformat()
    examples: dict[object, object] = {int: 7, float: 7.5, bool: True, str: "x"}
    return examples.get(wanted, None if type(None) in get_args(wanted) else ())


def test_a_kind_of_the_future_is_not_read_but_shown() -> None:
    assert events.decode("SomethingNew", b"{}") is None
    assert events.readable(b'{"v":1,"a":2}\nbody') == {"data": {"v": 1, "a": 2}, "body": "body"}
    assert events.readable(b'{"v":1}\n\xff')["body_base64"] == "/w=="
    assert events.readable(b"no json")["data"] is None


def test_an_older_version_is_lifted_on_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events.TransferDispatched, "version", 2)
    monkeypatch.setitem(
        catalogue._UPCASTERS,
        ("TransferDispatched", 1),
        lambda fields: {**fields, "attempt": fields["tries"] + 1},
    )
    old = b'{"v":1,"transfer_id":"%s","tries":1}' % str(SESSION).encode()
    decoded = events.decode("TransferDispatched", old)
    assert decoded is not None
    assert decoded[0] == events.TransferDispatched(transfer_id=SESSION, attempt=2)


@pytest.mark.parametrize(
    ("element", "stream"),
    [
        (b'{"data":{"call":{"id":"c1"}}}', "call-c1"),
        (b'{"data":{"call":{"id":""}}}', f"session-{SESSION}"),
        (b'{"data":{"call":{"id":"%s"}}}' % (b"x" * 300), f"session-{SESSION}"),
        (b'{"data":{"call":{"id":"a\\nb"}}}', f"session-{SESSION}"),
        (b'{"data":{"call":7}}', f"session-{SESSION}"),
        (b"not json", f"session-{SESSION}"),
        (b"[" * 100_000, f"session-{SESSION}"),
    ],
)
def test_a_notification_belongs_to_its_call_or_to_its_session(element: bytes, stream: str) -> None:
    assert events.stream_of_notification(element, SESSION) == stream
