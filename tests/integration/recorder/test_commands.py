from __future__ import annotations

from pathlib import Path

import pytest
from program import calltrail
from recording import agents, recording, settings_for, until

from service.cli.recorder_bench import measure
from service.postgres import Database
from service.simulator import Simulator


async def test_sessions_are_shown_by_the_command_line(database: Database, tmp_path: Path) -> None:
    async with (
        Simulator(seed=1, agent_count=3, timeout_ms=2_000) as simulator,
        recording(settings_for(database, simulator.url, tmp_path), agents(2)) as application,
    ):
        await until(application.log, "CallsSnapshotTaken", count=2)
        listed = await calltrail(database.url, "sessions", "--json")
        assert listed.status == 0
        told = listed.json["sessions"]
        assert [(one["agent"], one["status"]) for one in told] == [("15000", "open"), ("15001", "open")]


async def test_the_benchmark_tells_what_it_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cli.recorder_bench.SETTLING_S", 0.1)
    figures = await measure(10, per_second=50, seconds=1)
    assert figures["sessions"] == 10
    assert figures["notifications"] == 50
    keys = {"kb_per_session", "notifications_per_s", "wire_to_durable_p50_ms", "wire_to_durable_p99_ms"}
    assert keys <= figures.keys()
    assert 0 < figures["wire_to_durable_p50_ms"] <= figures["wire_to_durable_p99_ms"]
