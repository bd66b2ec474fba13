from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gws import Notification
from service.projections import memory
from service.projections.histories import notification
from service.projections.intervals import node_of, nodes_for
from service.projections.memory import Ages, Bloom
from service.projections.notice import of_call, read_notice
from service.projections.projection import storable

positions = st.one_of(st.integers(0, 64), st.integers(0, 1 << 34))


@settings(deadline=None)
@given(begin=positions, length=st.integers(1, 1 << 20), asked=positions)
def test_a_position_finds_the_intervals_that_contain_it_and_no_others(
    begin: int, length: int, asked: int
) -> None:
    end = begin + length
    node = node_of(begin, end)
    assert begin <= node < end
    below, above = nodes_for(asked, highest=1 << 36)
    found = (node in below and end > asked) or (node in above and begin <= asked)
    assert found == (begin <= asked < end)
    assert len(below) + len(above) <= 75


def test_few_nodes_are_asked_for() -> None:
    below, above = nodes_for(10_000_000, highest=1 << 40)
    assert len(below) + len(above) <= 42


def test_ages_forget_only_when_told_and_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "YOUNG_LIMIT", 99)
    ages: Ages[int] = Ages()
    for number in range(100):
        ages.young[number] = number
    assert ages.full
    ages.grow_old()
    assert not ages.full
    assert ages.find(7) == 7  # used, so young again
    ages.grow_old()
    assert ages.find(7) == 7
    assert ages.find(8) is None


def test_a_bloom_filter_never_denies_what_it_holds() -> None:
    bloom = Bloom()
    keys = [(f"call-{number}", "device") for number in range(5_000)]
    for key in keys:
        bloom.add(key)
    assert all(key in bloom for key in keys)
    assert sum((f"other-{number}", "device") in bloom for number in range(5_000)) < 5


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.floats(allow_nan=False))
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
texts = st.text(max_size=6)
calls = st.fixed_dictionaries(
    {"id": st.one_of(texts, anything)},
    optional={
        "state": st.one_of(texts, anything),
        "connId": st.one_of(texts, anything),
        "deviceUri": st.one_of(texts, st.just("http://x/devices/d1/"), anything),
        "participants": st.one_of(
            st.lists(st.one_of(texts, st.fixed_dictionaries({"phoneNumber": texts}), anything), max_size=3),
            anything,
        ),
        "capabilities": st.one_of(st.lists(st.sampled_from(["Hold", "CompleteTransfer"])), anything),
        "userData": st.one_of(st.dictionaries(texts, anything, max_size=3), anything),
        "parentCallUri": anything,
    },
)
elements = st.fixed_dictionaries(
    {"data": st.one_of(anything, st.fixed_dictionaries({"call": calls}, optional={"phoneNumber": anything}))},
    optional={"channel": anything},
)


@settings(deadline=None)
@given(element=elements)
def test_a_notice_says_what_the_tolerant_reading_says(element: dict[str, Any]) -> None:
    body = json.dumps(element).encode()
    told = Notification.parse(body)
    call = told.call if told else None
    notice = read_notice(body)
    if call is None or call.id is None:
        assert notice is None
        return
    assert told is not None
    expected = of_call(
        call, number=told.phone_number, why=told.notification_type, occurred_at=told.occurred_at
    )
    assert notice == expected


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"\xff\xfe", b'{"data":1}', b"[" * 100_000, b'{"data":{"call":[]}}']
)
def test_what_is_no_call_gives_no_notice(body: bytes) -> None:
    assert read_notice(body) is None


def test_the_old_form_with_participants_as_strings_is_read() -> None:
    body = msgspec.json.encode(
        {"data": {"call": {"id": "0071", "state": "Ringing", "participants": ["7001"]}, "phoneNumber": "1"}}
    )
    notice = read_notice(body)
    assert notice is not None
    assert (notice.call_id, notice.participants, notice.conn_id, notice.millis) == (
        "0071",
        ["7001"],
        None,
        None,
    )


def test_a_duplicate_key_of_user_data_reads_as_its_last_value() -> None:
    body = notification("15000", "c", "Ringing", [], {"k": 1}).replace(b'{"k":1}', b'{"k":1,"k":2}')
    notice = read_notice(body)
    assert notice is not None
    assert notice.user_data == {"k": 2}


@settings(deadline=None)
@given(
    value=st.recursive(st.text(st.characters()), lambda inner: st.dictionaries(st.text(), inner, max_size=3))
)
def test_what_is_storable_encodes_and_holds_no_nul(value: Any) -> None:
    assert b"\\u0000" not in msgspec.json.encode(storable(value))
