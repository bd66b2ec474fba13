"""Cutting bodies into verbatim elements."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cometd import split
from service.errors import ProtocolViolation

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
spaces = st.text(alphabet=" \t\r\n", max_size=3)


def encodable(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(
    elements=st.lists(st.tuples(json_values, spaces, spaces), max_size=6),
    before=spaces,
    after=spaces,
    compact=st.booleans(),
    ascii_only=st.booleans(),
)
def test_elements_come_out_as_they_went_in(
    elements: list[tuple[object, str, str]], before: str, after: str, *, compact: bool, ascii_only: bool
) -> None:
    separators = (",", ":") if compact else (", ", ": ")
    texts = [
        json.dumps(value, ensure_ascii=ascii_only or not encodable(value), separators=separators)
        for value, _, _ in elements
    ]
    inner = ",".join(left + text + right for text, (_, left, right) in zip(texts, elements, strict=True))
    messages = split(f"{before}[{inner or before}]{after}".encode())
    assert [message.raw.decode() for message in messages] == texts
    for message, (value, _, _) in zip(messages, elements, strict=True):
        if isinstance(value, dict) and encodable(value):
            assert message.fields == value
            assert message.problem is None
        else:
            assert message.fields == {}
            assert message.problem


@given(json_values, st.data())
def test_a_body_cut_short_is_refused_whole(value: object, data: st.DataObject) -> None:
    body = json.dumps([{"channel": "/x", "data": value}, {"channel": "/y"}]).encode()
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    with pytest.raises(ProtocolViolation) as refused:
        split(cut)
    assert refused.value.body == cut


def test_numbers_order_and_duplicate_keys_survive() -> None:
    raw = b'{"data" : {"b":1.50e+02,"a":-0, "b":1.0}, "channel":"/v2/me/calls"}'
    (message,) = split(b"[" + raw + b"]")
    assert message.raw == raw
    assert message.channel == "/v2/me/calls"


def test_text_beyond_ascii_is_cut_by_character_and_kept_by_byte() -> None:
    bodies = ['{"data":"Grüße 🎉"}', '{"data":"ascii"}', '{"data":"\u2028"}']
    messages = split(f"[{','.join(bodies)}]".encode())
    assert [message.raw for message in messages] == [body.encode() for body in bodies]


def test_a_bare_object_is_one_message() -> None:
    (message,) = split(b' {"channel":"/meta/connect","successful":true}\r\n')
    assert message.successful
    assert message.raw == b'{"channel":"/meta/connect","successful":true}'


@pytest.mark.parametrize(
    ("element", "problem"),
    [
        (b'{"data":' + b"[" * 50_000 + b'"]\\"}"' + b"]" * 50_000 + b"}", "nested"),
        (b'{"a":"x]","data":NaN}', "NaN"),
        (b"-Infinity", "Infinity"),
        (b'{"n":' + b"9" * 10_000 + b"}", "digits"),
        (b"9" * 10_000, "digits"),
        (b'{"s":"\\uD83D alone"}', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b'"text"', "not an object"),
        (b"null", "not an object"),
    ],
)
def test_what_cannot_be_held_is_kept_raw_beside_sound_neighbours(element: bytes, problem: str) -> None:
    sound = b'{"channel":"/v2/me/calls","data":1}'
    before, message, after = split(b"[" + sound + b" ,\n" + element + b"\t," + sound + b"]")
    assert before.raw == after.raw == sound
    assert message.raw == element
    assert message.fields == {}
    assert message.problem is not None
    assert problem in message.problem
    assert message.is_event
    assert message.channel is None


def test_paired_surrogates_are_ordinary_text() -> None:
    (message,) = split(b'[{"channel":"/x","data":"\\ud83d\\ude00"}]')
    assert message.data == "😀"


def test_a_large_message_is_no_trouble() -> None:
    raw = json.dumps({"channel": "/x", "data": "x" * (1 << 20)}).encode()
    (message,) = split(b"[" + raw + b"]")
    assert message.raw == raw


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"<html>log in</html>",
        b"[",
        b"[{}",
        b"[{},]",
        b"[{}{}]",
        b"[{}]]",
        b"[{}] x",
        b'{"a":1},{"b":2}',
        b'[{"a":\x80}]',
        b'[{"a":"\xff"}]',
        b"\xef\xbb\xbf[]",
        b'[{"a":' + b"[" * 50_000,
        b'[{"a":' + b"[" * 50_000 + b"}" * 50_000 + b"}]",
        b'[{"a":' + b"[" * 50_000 + b'"' + b"]" * 50_000 + b"}]",
    ],
)
def test_what_is_not_json_is_refused_with_the_body(body: bytes) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        split(body)
    assert refused.value.body == body


@pytest.mark.parametrize(
    ("element", "event"),
    [
        ('{"channel":"/v2/me/calls","data":{}}', True),
        ('{"channel":"/v2/me/calls"}', True),
        ('{"channel":"/service/x","data":1}', True),
        ('{"channel":"/v2/me/calls","data":{},"successful":true}', True),
        ('{"channel":"/v2/me/calls","successful":true,"id":"7"}', False),
        ('{"channel":"/meta/connect","successful":true}', False),
        ('{"channel":"/meta/connect"}', False),
        ('{"data":{}}', True),
        ("{}", True),
    ],
)
def test_events_are_told_from_replies(element: str, *, event: bool) -> None:
    assert split(element.encode())[0].is_event is event


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        ('"402::Unknown client"', 402, "Unknown client"),
        ('"402:c1,secret:session_unknown"', 402, "session_unknown"),
        ('"403:a:b:c"', 403, "c"),
        ('"500"', 500, ""),
        ('"trouble"', None, "trouble"),
        ('""', None, ""),
        ("402", None, ""),
        ("null", None, ""),
    ],
)
def test_errors_are_read_without_their_arguments(error: str, code: int | None, text: str) -> None:
    assert split(f'[{{"error":{error}}}]'.encode())[0].error == (code, text)


def test_fields_of_the_wrong_type_are_as_good_as_absent() -> None:
    (message,) = split(b'[{"channel":1,"advice":"x","ext":[],"successful":"true","id":7}]')
    assert message.channel is None
    assert message.advice is None
    assert message.ext == {}
    assert not message.successful
    assert message.id == "7"


def test_a_message_shows_no_content() -> None:
    assert "secret" not in repr(split(b'[{"channel":"/x","clientId":"secret","data":"secret"}]'))
