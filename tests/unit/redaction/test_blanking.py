from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadInput
from service.events import CommandObserved, NotificationReceived, TransferRequested, encode
from service.log import Producer
from service.projections.histories import notification
from service.redaction import Fields
from service.redaction.blanking import BLANK, plain_values

SESSION = Producer.new().key
NOTIFIED = NotificationReceived(session=SESSION, agent="15000", count=0, channel="/v2/me/calls")
KIND = NOTIFIED.kind()


def blank(document: Any, *fields: str) -> Any:
    """A notification's body after the redaction of `fields`."""
    new, _ = Fields(list(fields)).blank(KIND, encode(NOTIFIED, msgspec.json.encode(document)), "c")
    return json.loads(new.partition(b"\n")[2])


@pytest.mark.parametrize(
    ("fields", "before", "after"),
    [
        (
            ["userData.*"],
            {"a": {"userData": {"x": "1", "y": 2}}},
            {"a": {"userData": {"x": BLANK, "y": None}}},
        ),
        (["userData"], {"userData": {"x": {"y": ["1", "2"]}}}, {"userData": {"x": {"y": [BLANK, BLANK]}}}),
        (["userData.x"], {"userData": {"x": "1", "y": "2"}}, {"userData": {"x": BLANK, "y": "2"}}),
        (["p.*.n"], {"p": [{"n": "1", "d": "1"}]}, {"p": [{"n": BLANK, "d": "1"}]}),
        (["p.*.n"], {"p": ["1", "2"]}, {"p": [BLANK, BLANK]}),
        (["d.n"], {"d": "1"}, {"d": BLANK}),
        (["a.b"], {"a": {"a": {"b": "1"}}, "b": "2"}, {"a": {"a": {"b": BLANK}}, "b": "2"}),
        (["a", "a.b"], {"a": {"b": ["1", True, None, ""]}}, {"a": {"b": [BLANK, None, None, ""]}}),
        (["x"], {"y": "1"}, {"y": "1"}),
        (
            ["x"],
            {"calls": [{"id": "d", "x": "1"}, {"id": "c", "x": "2"}, {"x": "3"}, {"id": "e", "x": "4"}]},
            {"calls": [{"id": "d", "x": "1"}, {"id": "c", "x": BLANK}, {"x": BLANK}, {"id": "e", "x": "4"}]},
        ),
    ],
)
def test_a_path_names_fields_at_every_depth(fields: list[str], before: Any, after: Any) -> None:
    assert blank(before, *fields) == after
    assert blank(after, *fields) == after


def test_what_is_not_named_stays_byte_for_byte() -> None:
    payload = encode(NOTIFIED, b' {"userData" : {"a":1.0} , "z":[ ] }')
    assert Fields(["participants"]).blank(KIND, payload, "c") == (payload, [])


def test_the_line_and_the_body_of_a_command_are_blanked() -> None:
    requested = TransferRequested(SESSION, "c", "15000", "15000", "gws", "0301234567", "f" * 64)
    body = b'{"destination":{"phoneNumber":"0301234567"},"userData":{"name":"Ada"}}'
    new, blanked = Fields(["destination.phoneNumber", "userData.*", "fingerprint"]).blank(
        requested.kind(), encode(requested, body), "c"
    )
    assert {path for path, _ in blanked} == {
        "destination",
        "destination.phoneNumber",
        "userData.name",
        "fingerprint",
    }
    assert b"0301234567" not in new
    assert b"Ada" not in new


@pytest.mark.parametrize("body", [b"\xff no JSON 0301234567", b'{"a":' * 100_000, b'{"a":[' + b"[" * 300])
def test_a_body_that_cannot_be_looked_into_goes_as_a_whole(body: bytes) -> None:
    payload = encode(NOTIFIED, body)
    new, _ = Fields(["userData"]).blank(KIND, payload, "c")
    assert new == encode(NOTIFIED, b"[redacted]")
    assert Fields(["userData"]).blank(KIND, new, "c") == (new, [])


@pytest.mark.parametrize("asked", [b'{"userData":{"name":"Ada"}}', b"null"])
def test_of_an_observed_command_request_and_answer_are_blanked(asked: bytes) -> None:
    at, answer = datetime(2026, 1, 1, tzinfo=UTC), b'{"statusCode":0,"userData":{"name":"Ada"}}'
    observed = CommandObserved("15000", SESSION, "POST", "/me/calls/c", at)
    payload = encode(observed, b"[%b,%b]" % (asked, answer))
    new, _ = Fields(["userData"]).blank(observed.kind(), payload, "c")
    assert new == payload.replace(b"Ada", b"[redacted]")
    assert Fields(["dnis"]).blank(observed.kind(), payload, "c") == (payload, [])


def test_a_line_that_is_no_json_goes_as_a_whole() -> None:
    new, blanked = Fields(["userData"]).blank(KIND, b"\xff 0301234567\n{}", "c")
    assert (new, blanked) == (b"[redacted]\n{}", [("(the line)", "")])
    assert Fields(["userData"]).blank(KIND, new, "c") == (new, [])


@pytest.mark.parametrize("field", ["id", "call", "data", "session", "count", "agent"])
def test_what_an_event_is_found_by_cannot_be_blanked(field: str) -> None:
    payload = encode(NOTIFIED, notification("15000", "CALL1", "Established", ["0301234567"], {}))
    with pytest.raises(BadInput) as caught:
        Fields([field]).blank(KIND, payload, "c")
    assert caught.value.field == "fields"


@pytest.mark.parametrize("text", ["", " , ", "*", "*.a", "a..b", ".a", "a."])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        Fields(text.split(","))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abcd"), inner),
    max_leaves=20,
)


@given(JSON, st.lists(st.sampled_from(["a", "a.b", "b.*", "c.*.d"]), min_size=1))
def test_nothing_named_is_left_and_nothing_else_is_touched(document: Any, fields: list[str]) -> None:
    after = blank({"a": document}, *fields)
    left = {path.split(".")[0] for path, value in plain_values(after) if value not in {BLANK, "", None}}
    if "a" in fields:
        assert not left
    assert [path for path, _ in plain_values(after)] == [path for path, _ in plain_values({"a": document})]
