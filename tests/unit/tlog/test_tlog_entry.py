import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import COMMITMENT, PAYLOAD, SALT

from service.errors import Malformed
from service.tlog.entry import Entry, commit

ENTRY = Entry(
    position=17,
    event_id="0192f0c1-7b1e-7c1a-9d3b-0123456789ab",
    stream="call-0073028DOE30",
    kind="NotificationReceived",
    recorded_at="2026-11-24T20:13:00.123456Z",
    commitment=COMMITMENT,
)
DATA = (
    b'{"v":1,"position":17,"id":"0192f0c1-7b1e-7c1a-9d3b-0123456789ab","stream":"call-0073028DOE30",'
    b'"kind":"NotificationReceived","recorded_at":"2026-11-24T20:13:00.123456Z",'
    b'"commitment":"rtig67X2CoqgZVSHMxi46IhYTr3feHglhxmTCuMoy7I="}'
)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


def test_the_spelling_of_an_entry() -> None:
    assert ENTRY.encode() == DATA
    assert Entry.decode(DATA) == ENTRY


def test_the_spelling_of_every_character_is_that_of_the_standard_library() -> None:
    characters = "".join(map(chr, range(0x3000))) + "\ue000\uffff\U0001f4de\U0010ffff"
    for stream in characters:
        spelled = f'"stream":{json.dumps(stream)},'.encode()
        assert spelled in ENTRY._replace(stream=stream).encode()


def test_the_published_commitment() -> None:
    assert commit(SALT, PAYLOAD) == COMMITMENT
    assert ENTRY.opens(SALT, PAYLOAD)
    assert not ENTRY.opens(SALT, PAYLOAD + b" ")
    assert not ENTRY.opens(bytes(16), PAYLOAD)


def test_bytes_cannot_be_moved_between_salt_and_payload() -> None:
    assert commit(SALT + PAYLOAD[:1], PAYLOAD[1:]) == COMMITMENT
    assert not ENTRY.opens(SALT + PAYLOAD[:1], PAYLOAD[1:])
    assert not ENTRY.opens(SALT[:15], SALT[15:] + PAYLOAD)


@given(st.integers(0, 2**63 - 1), st.uuids(), TEXTS, TEXTS, st.binary(min_size=32, max_size=32))
def test_every_entry_is_json_and_reads_back(
    position: int, event_id: object, stream: str, kind: str, commitment: bytes
) -> None:
    entry = Entry(position, str(event_id), stream, kind, ENTRY.recorded_at, commitment)
    data = entry.encode()
    assert data.isascii()
    assert Entry.decode(data) == entry
    assert json.loads(data)["stream"] == stream


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"17",
        b"[" * 60_000,
        b'{"v":1,"position":' + b"9" * 5_000 + b"}",
        DATA + b"\n",
        b" " + DATA,
        b"\xef\xbb\xbf" + DATA,
        DATA.decode().encode("utf-16"),
        DATA.replace(b":17,", b": 17,"),
        DATA.replace(b":17,", b":17.0,"),
        DATA.replace(b":17,", b":1.7e1,"),
        DATA.replace(b":17,", b':"17",'),
        DATA.replace(b":17,", b":-1,"),
        DATA.replace(b":17,", b":true,"),
        DATA.replace(b":17,", b":9223372036854775808,"),
        DATA.replace(b":17,", b":NaN,"),
        DATA.replace(b'"v":1', b'"v":2'),
        DATA.replace(b'"v":1', b'"v":true'),
        DATA.replace(b'"v":1', b'"v":1,"v":1'),
        DATA.replace(b'"v":1,"position":17', b'"position":17,"v":1'),
        DATA.replace(b'"v":1,', b'"v":1,"more":1,'),
        DATA.replace(b'"kind":"NotificationReceived",', b""),
        DATA.replace(b"call-", b"c\\u0061ll-"),
        DATA.replace(b"call-", b"call\\/"),
        DATA.replace(b"call-", "c\u00e4ll-".encode()),
        DATA.replace(b"call-", b"\\ud800"),
        DATA.replace(b"call-0073028DOE30", b""),
        DATA.replace(b'"NotificationReceived"', b"null"),
        DATA.replace(b"0192f0c1", b"0192F0C1"),
        DATA.replace(b"0192f0c1-", b"0192f0c1"),
        DATA.replace(b"T20", b" 20"),
        DATA.replace(b"456Z", b"Z"),
        DATA.replace(b"Z", b"+00:00"),
        DATA.replace(b"oy7I=", b"oy7J="),
        DATA.replace(b"oy7I=", b""),
        DATA.replace(b"oy7I=", b"oy7I=\\n"),
    ],
)
def test_an_entry_in_any_other_form_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="entry"):
        Entry.decode(data)


def test_the_longest_entry_is_what_a_bundle_holds() -> None:
    longest = ENTRY._replace(stream="s" * (65_535 - len(DATA) + len(ENTRY.stream))).encode()
    assert len(longest) == 65_535
    assert Entry.decode(longest).encode() == longest
    with pytest.raises(Malformed, match="65536 bytes"):
        Entry.decode(longest.replace(b"ss", b"sss", 1))


@given(st.binary(max_size=60), st.integers(0, len(DATA)), st.integers(0, len(DATA)))
def test_reading_any_bytes_succeeds_or_says_malformed(noise: bytes, start: int, end: int) -> None:
    for data in (noise, DATA[:start] + noise + DATA[end:]):
        try:
            entry = Entry.decode(data)
        except Malformed:
            continue
        assert entry.encode() == data
