"""The demo as a user runs it: in a process of its own, killed in the middle, and run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from program import calltrail, start
from sqlalchemy.engine import URL

from service.log import open_log
from service.postgres import open_pools

CALLS = ("01RCC3N118B1V0SL8O7GK2LAES00000D", "01RCC3N118B1V0SL8O7GK2LAES00000G")


async def output(url: URL, data_dir: Path, *arguments: str) -> Any:
    ended = await calltrail(url, *arguments, CALLTRAIL_DATA_DIR=str(data_dir))
    assert ended.status == 0, ended.error
    return ended.json


async def test_the_demo_says_what_it_shows_and_the_commands_read_it_back(
    database_url: URL, tmp_path: Path
) -> None:
    told = await output(database_url, tmp_path, "demo", "--json")
    assert set(told["executed"].values()) == {1}
    assert [transfer["outcome"] for transfer in told["transfers"]] == ["confirmed"] * 3
    second = told["transfers"][1]
    assert (second["reason"], second["user_data"]["TransferAgent"]) == ("Escalation", "WillardC")
    shown = await output(database_url, tmp_path, "transfer", "show", second["transfer_id"], "--json")
    assert shown == second
    listed = await output(database_url, tmp_path, "transfers", "--reason", "Escalation", "--json")
    assert [transfer["transfer_id"] for transfer in listed["transfers"]] == [second["transfer_id"]]
    history = await output(database_url, tmp_path, "history", CALLS[1], "--json")
    assert {event["kind"] for event in history["events"]} >= {"TransferDispatched", "TransferConfirmed"}
    then = await output(
        database_url,
        tmp_path,
        "calls",
        "--as-of",
        str(second["first_position"]),
        "--call",
        CALLS[1],
        "--json",
    )
    states = {leg["phone_number"]: leg["state"] for leg in then["calls"][0]["legs"]}
    assert states["15000"] == "Established"
    covered = await output(database_url, tmp_path, "coverage", "15000", "--json")
    assert [one["agent"] for one in covered["agents"]] == ["15000"]
    assert covered["agents"][0]["spans"]
    rebuilt = await output(database_url, tmp_path, "rebuild", "--json")
    assert rebuilt["generations"]["call_state"] == rebuilt["generations"]["transfer_audit"] == 2
    assert await output(database_url, tmp_path, "transfer", "show", second["transfer_id"], "--json") == second


@pytest.mark.parametrize("until", ["TransferDispatched", "TransferAccepted"])
async def test_killed_in_the_middle_and_run_again_it_has_lost_nothing(
    database_url: URL, tmp_path: Path, until: str
) -> None:
    process = await start(database_url, "demo", CALLTRAIL_DATA_DIR=str(tmp_path))
    assert process.stdout is not None
    told: list[tuple[int, str]] = []
    async for line in process.stdout:
        words = line.decode().split()
        if words and words[0].isdecimal():
            told.append((int(words[0]), words[1]))
            if words[1] == until:
                break
    process.kill()
    await process.communicate()
    again = await output(database_url, tmp_path, "demo", "--json")
    assert again["events_before"] > told[-1][0]
    assert set(again["executed"].values()) == {1}
    async with open_pools(database_url) as database, open_log(database, max_payload_bytes=1 << 20) as log:
        events = await log.read(limit=10_000)
        assert len(events) >= again["events"]
        assert [event.position for event in events] == list(range(len(events)))
        assert [(event.position, event.kind) for event in events[: len(told)]] == told
        # What is concluded is watched for a while, in case it is contradicted; nothing else is left open.
        states = {row["state"] for row in await database.pool.fetch("SELECT state FROM transfer_work")}
        assert states <= {"confirmed", "failed", "rejected", "abandoned"}
