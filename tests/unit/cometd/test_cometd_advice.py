"""Reading advice, and the pauses that go with it."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from service.cometd import Advice, Timing
from service.cometd.advice import LONGEST, parse
from service.cometd.patience import Patience


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, Advice()),
        ({"reconnect": "retry", "interval": 500, "timeout": 20000}, Advice(interval=0.5, timeout=20.0)),
        ({"reconnect": "handshake", "interval": 0}, Advice(reconnect="handshake", timeout=30.0)),
        ({"reconnect": "none"}, Advice(reconnect="none")),
        ({"reconnect": "perhaps"}, Advice()),
        ({"maxInterval": 10000}, Advice(max_interval=10.0)),
        ({"multiple-clients": True, "interval": 2000}, Advice(interval=2.0, multiple_clients=True)),
        ({"hosts": ["b.example", 7]}, Advice(hosts=("b.example",))),
        ({"timeout": None, "interval": "soon", "maxInterval": True, "hosts": "b"}, Advice()),
        ({"timeout": 0}, Advice(timeout=0.0)),
        ({"timeout": -1}, Advice(timeout=30.0)),
        ({"timeout": 10**400, "interval": 1e300}, Advice(timeout=LONGEST, interval=LONGEST)),
        ({"interval": -1}, Advice(interval=-0.001)),
        ({"interval": -(10**400)}, Advice(interval=-1.0)),
        ({"interval": 9, "long-polling": {"interval": 1000}}, Advice(interval=1.0)),
        ({"interval": 9000, "websocket": {"interval": 1000}}, Advice(interval=9.0)),
    ],
)
def test_every_blank_is_filled_in(given: dict[str, Any], read: Advice) -> None:
    assert parse(given, "long-polling") == read


def patience(seed: int = 1) -> Patience:
    return Patience(Timing(), random.Random(seed))


def test_failures_are_retried_at_once_then_ever_more_slowly() -> None:
    several = [patience(seed) for seed in range(200)]
    rounds = [[each.after_failure() for each in several] for _ in range(14)]
    assert set(rounds[0]) == {0.0}
    for pauses, longest in zip(rounds[1:], [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60], strict=True):
        assert 0 <= min(pauses) < longest / 10
        assert longest * 0.9 < max(pauses) <= longest


def test_agents_of_a_lost_server_do_not_come_back_together() -> None:
    pauses = sorted(patience(seed).after_loss() for seed in range(1000))
    assert pauses[0] < 0.02
    assert pauses[-1] > 0.98
    assert max(later - earlier for earlier, later in pairwise(pauses)) < 0.05


def test_a_refusal_is_never_hammered() -> None:
    each = patience()
    for longest in (60, 120, 240, 480, 900, 900):
        assert longest / 2 <= each.after_refusal() <= longest
    each.admitted()
    assert each.after_refusal() <= 60


def test_success_starts_over() -> None:
    each = patience()
    for _ in range(2000):
        each.after_failure()
    each.succeeded()
    assert each.after_failure() == 0.0
