"""What is kept of a command."""

from __future__ import annotations

import json

from service.events import decode
from service.log import Producer
from service.redaction.blanking import Fields
from service.tap.bodies import Sized
from service.tap.exchange import Exchange
from service.tap.heads import parse_request, parse_response
from service.tap.observing import observed
from service.tap.who import Visitor

ASKED = b'{ "operationName":"AttachUserData", "userData":{"Name":"Jane Doe","n":1.50} }'
ANSWERED = b'{"statusCode":0}'


def exchange(asked: bytes = ASKED, answered: bytes | None = ANSWERED) -> Exchange:
    head = parse_request(b"POST /api/v2/me/calls/01A HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c2VjcmV0")
    made = Exchange(head, body(asked))
    if answered is not None:
        made.response = parse_response(b"HTTP/1.1 200 OK")
        made.answer = body(answered)
    return made


def body(content: bytes) -> Sized:
    sized = Sized(len(content), keep=10_000)
    sized.take(bytearray(content))
    return sized


def test_request_and_answer_are_kept_as_they_came() -> None:
    event = observed(exchange(), Visitor("15000", Producer.new().key))
    decoded = decode(event.kind, event.payload)
    assert decoded is not None
    assert decoded[1] == b"[" + ASKED + b"," + ANSWERED + b"]"
    assert event.stream == "call-01A"
    assert b"c2VjcmV0" not in event.payload


def test_a_command_without_an_answer_says_so() -> None:
    event = observed(exchange(answered=None), Visitor(None, Producer.new().key))
    decoded = decode(event.kind, event.payload)
    assert decoded is not None
    assert decoded[1] == b"[" + ASKED + b",null]"
    assert decoded[0].http_status is None  # type: ignore[attr-defined]


def test_personal_data_in_a_command_can_be_blanked() -> None:
    event = observed(exchange(), Visitor("15000", Producer.new().key))
    payload, blanked = Fields(["userData.*"]).blank(event.kind, event.payload, "01A")
    assert b"Jane Doe" not in payload
    assert len(blanked) == 2
    decoded = decode(event.kind, payload)
    assert decoded is not None
    assert json.loads(decoded[1])[0]["operationName"] == "AttachUserData"
