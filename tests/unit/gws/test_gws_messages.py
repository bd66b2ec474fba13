from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gws import Answer, Call, Notification, Verdict

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("id", "state", "connId", "callType", "deviceUri", "participants", "capabilities", "userData")


def test_a_sample_is_read_whole(sample: Callable[[str], bytes]) -> None:
    notification = Notification.parse(sample("sample2-notification"))
    assert notification is not None
    assert notification.channel == "/v2/me/calls"
    assert notification.message_type == "CallStateChangeMessage"
    assert notification.phone_number == "15000"
    assert not notification.is_error
    call = notification.call
    assert call is not None
    assert call.id == "01RCC3N118B1V0SL8O7GK2LAES00000G"
    assert call.conn_id == "0071027198180010"
    assert call.state == "Released"
    assert call.device == "631608b3-ceb1-472b-ba05-2ae39555b0d1"
    assert call.participants == ("15001",)
    assert call.user_data == {"TransferAgent": "WillardC", "TransferReason": "Escalation"}
    assert call.document["mute"] == "Off"


def test_the_old_form_is_read_too() -> None:
    call = Call({"id": "007102719818000d", "participants": ["15001", "15002"]})
    assert call.participants == ("15001", "15002")
    assert call.conn_id is None


def test_the_servers_time_is_read_where_it_is_given() -> None:
    metrics = {"eventProcessing": {"serverGenerationTimestamp": 1_700_000_000_000}}
    notification = Notification("/v2/me/calls", {"metrics": metrics})
    assert notification.occurred_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"messageType": "ErrorMessage"}, "no code and no text"),
        ({"messageType": "EventError", "error": {"errorCode": 415, "errorMessage": "Bad DN"}}, "415 Bad DN"),
        ({"notificationType": "Error"}, "no code and no text"),
        ({"notificationType": "PasswordChangeError", "errorCode": 3}, "3"),
        ({"errorMessage": "no"}, "no"),
    ],
)
def test_every_shape_of_error_is_recognised(data: dict[str, object], text: str) -> None:
    notification = Notification(None, data)
    assert notification.is_error
    assert notification.error_text == text


@given(st.dictionaries(st.sampled_from(FIELDS), anything), st.dictionaries(st.text(), anything))
def test_whatever_comes_reading_does_not_raise(call: dict[str, object], data: dict[str, object]) -> None:
    element = json.dumps({"channel": "/v2/me/calls", "data": {**data, "call": call}}).encode()
    notification = Notification.parse(element)
    assert notification is not None
    leg = notification.call
    assert leg is not None
    read = (leg.id, leg.state, leg.device, leg.participants, leg.capabilities, leg.user_data)
    assert len(read) == 6
    assert isinstance(notification.is_error, bool)
    assert notification.occurred_at is None or notification.occurred_at.tzinfo is not None


@given(st.binary())
def test_bytes_that_are_no_notification_read_as_none_or_one(element: bytes) -> None:
    assert Notification.parse(element) is None or isinstance(Notification.parse(element), Notification)


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b'{"statusCode":0}', Verdict.ACCEPTED),
        *((500, b'{"statusCode":%d}' % code, Verdict.REJECTED) for code in (1, 2, 3, 5, 6, 8, 10, 20)),
        *((200, b'{"statusCode":%d}' % code, Verdict.IN_DOUBT) for code in (4, 7, 9, 11)),
        (502, b"<html>", Verdict.IN_DOUBT),
        (200, b"{}", Verdict.IN_DOUBT),
        (200, b'{"statusCode":true}', Verdict.IN_DOUBT),
        (403, b"Missing or invalid Csrf token", Verdict.REJECTED),
        (401, b"", Verdict.REJECTED),
    ],
)
def test_the_status_code_decides_before_the_http_status(status: int, body: bytes, verdict: Verdict) -> None:
    assert Answer.of(status, "application/json", body).verdict is verdict


def test_what_gws_says_is_fit_to_be_shown_and_stored() -> None:
    body = json.dumps({"statusMessage": "no\x00 \ud800" + "x" * 10_000}).encode()
    message = Answer.of(403, "", body).message
    assert message.startswith("no� �xxx")
    assert len(message) == 500
