"""`calltrail bench log` prints every figure that is promised; how good they are is not for a test to say."""

from __future__ import annotations

from importlib import import_module

import pytest
from sqlalchemy.engine import URL

bench = import_module("service.cli.bench")  # the group of commands has the same name

PROMISED = {
    "append_vs_copy_concurrent",
    "append_vs_copy_bulk",
    "append_events_per_s",
    "serial_vs_insert_p50",
    "read_vs_cursor",
    "follow_p50_ms",
    "bytes_vs_payload",
    "table_bytes_per_event",
    "indexes_bytes_per_event",
    "tiles_bytes_per_event",
    "wal_bytes_per_event",
    "verify_events_per_s",
    "far_append_events_per_s",
    *(f"{what}_rss_{when}_mib" for what in ("append", "read", "verify") for when in ("before", "after")),
}


SMALL = {
    "WARM_UP": 500,
    "PRODUCERS": 20,
    "ROUNDS": 2,
    "FEWEST": 200,
    "ALONE": 100,
    "FOLLOWED": 50,
    "FAR_ALONE": 5,
    "STAGES": (2_000,),
}


async def test_a_small_run_prints_every_figure(server_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in SMALL.items():
        monkeypatch.setattr(bench, name, small)
    result = await bench.run_bench(server_url, 4_000, lambda _: None, grow_to=6_000)
    assert {name: result[name] for name in PROMISED if not result[name] > 0} == {}
    assert result["verified"]
    sizes = [stage["events"] for stage in result["growth"]]
    assert len(sizes) == 3
    assert sizes == sorted(sizes)
