from __future__ import annotations

import asyncio
import csv
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec
import pytest
from bundles import alterations, read, write
from pyarrow import parquet

from service.analytics import TransferFilter
from service.audit.export import Exporter
from service.audit.record import COLUMNS
from service.audit.selection import Wanted
from service.audit.verify import verify_bundle
from service.errors import BadInput, TlogError
from service.events import TransferRequested, encode, transfer_stream
from service.log import EventLog, NewEvent, Producer, rfc3339
from service.log.checkpoints import Checkpoints, LogKeys, load_keys
from service.postgres import Database
from service.projections import Engine, Queries, catalogue
from service.projections.histories import Histories

DOCS = Path(__file__).parents[3] / "docs"
EVERYTHING = Wanted()
HOSTILE = '=HYPERLINK("http://x","<script>alert(1)</script>")'


@dataclasses.dataclass(frozen=True)
class Site:
    """A log with transfers, its views, and what exports need."""

    log: EventLog
    queries: Queries
    exporter: Exporter
    keys: LogKeys
    folder: Path

    @property
    def vkey(self) -> str:
        return self.keys.trusted[-1].encode()

    async def bundle(self, wanted: Wanted = EVERYTHING) -> Path:
        target = self.folder / "transfers.zip"
        await self.exporter.export(wanted, "bundle", by="Ada Auditor", target=target)
        return target


@pytest.fixture
async def site(log: EventLog, database: Database, tmp_path: Path) -> AsyncIterator[Site]:
    await log.append(list(itertools.islice(Histories(live=8, agents=10).events(), 600)))
    await log.append([hostile_transfer()])
    engine = Engine(database, log, catalogue())
    engine.loop.start()
    assert await engine.reached(await log.next_position() - 1, timeout_s=60)
    keys = load_keys(tmp_path / "keys")
    yield Site(log, Queries(database), Exporter(log, Checkpoints(database, keys)), keys, tmp_path)
    await engine.loop.stop()


def hostile_transfer() -> NewEvent:
    transfer = Producer.new()
    event = TransferRequested(
        transfer.key, "C1", agent="=1+1", caller="@eve", door="api", destination="-5", fingerprint="0" * 64
    )
    body = msgspec.json.encode({"userData": {"TransferReason": HOSTILE}})
    return NewEvent(transfer.event_id(0), transfer_stream("C1"), event.kind(), encode(event, body))


def standalone(path: Path, vkey: str) -> int:
    """What the documentation's script says of a bundle, as an exit status."""
    sys.path.insert(0, str(DOCS))
    try:
        spec = importlib.util.spec_from_file_location("verify_bundle", DOCS / "verify_bundle.py")
        assert spec is not None
        assert spec.loader is not None
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        status: int = script.main([str(path), vkey])
        return status
    finally:
        sys.path.remove(str(DOCS))


def refuses(path: Path, site: Site) -> bool:
    try:
        verify_bundle(path, verifiers(site))
    except TlogError:
        return True
    return False


def verifiers(site: Site) -> list[Any]:
    return site.keys.verifiers


async def test_a_bundle_holds_every_transfer_with_the_events_it_rests_on(site: Site) -> None:
    files = dict(read(await site.bundle()))
    rows = [json.loads(line) for line in files["transfers.jsonl"].splitlines()]
    expected = await site.queries.transfers(limit=1000)
    assert {row["transfer_id"] for row in rows} == {str(row["transfer_id"]) for row in expected}
    assert len(rows) == len(expected) > 10
    events = {event["position"]: event for event in map(json.loads, files["events.jsonl"].splitlines())}
    for row in expected:
        for step in row["steps"]:
            assert json.loads(events[step["position"]]["entry"])["kind"].startswith("Transfer")
        assert set(row["evidence"]) <= set(events)
    assert set(files) >= {"report.html", "report.pdf", "transfers.csv", "gaps.json", "VERIFY.md", "log.pub"}


async def test_both_verifiers_find_a_bundle_intact_and_the_log_knows_of_it(site: Site) -> None:
    path = await site.bundle()
    found = verify_bundle(path, verifiers(site))
    assert found.transfers > 10
    assert found.by == "Ada Auditor"
    assert standalone(path, site.vkey) == 0
    [exported] = await site.log.read_stream("audit")
    manifest = hashlib.sha256(dict(read(path))["manifest.json"]).hexdigest()
    assert json.loads(exported.payload)["sha256"] == manifest


async def test_the_scripts_in_a_bundle_verify_it_on_their_own(site: Site, tmp_path: Path) -> None:
    path = await site.bundle()
    alone = tmp_path / "alone"
    alone.mkdir()
    for name, data in read(path):
        if name.endswith(".py"):
            (alone / name).write_bytes(data)
    shutil.copy(path, alone / "bundle.zip")
    command = [sys.executable, "-E", "-s", "verify_bundle.py", "bundle.zip", site.vkey]
    done = await asyncio.create_subprocess_exec(*command, cwd=alone, stdout=asyncio.subprocess.PIPE)
    said, _ = await done.communicate()
    assert done.returncode == 0
    assert said.startswith(b"intact: ")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_what_verify_md_says_to_run_can_be_run_as_it_stands(site: Site, tmp_path: Path) -> None:
    """By a stranger who has the bundle, the key, Python's standard library and openssl."""
    for name, data in read(await site.bundle()):
        (tmp_path / name).write_bytes(data)
    text = (tmp_path / "VERIFY.md").read_text(encoding="utf-8").replace("VKEY", site.vkey)
    commands = [
        dedent(block) for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE) if "END" in block
    ]

    async def said() -> list[bytes]:
        outputs = []
        for command in commands:
            done = await asyncio.create_subprocess_exec(
                *("bash", "-c", command),
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            outputs.append((await done.communicate())[0].strip())
        return outputs

    assert await said() == [b"every file is as the manifest says", b"Signature Verified Successfully"]
    for name in ("transfers.csv", "checkpoint"):
        first, rest = (tmp_path / name).read_bytes().split(b"\n", 1)
        (tmp_path / name).write_bytes(first + b"\n1" + rest)  # before the log's size, and the first row
    altered, signature = await said()
    assert altered == b"altered: checkpoint transfers.csv"
    assert signature.startswith(b"Signature Verification Failure")


async def test_every_alteration_of_a_bundle_is_caught_by_both_verifiers(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    files = read(await site.bundle())
    altered = site.folder / "altered.zip"
    ways = list(alterations([name for name, _ in files]))
    assert len(ways) >= 50
    for name, alter in ways:
        made = alter(list(files))
        assert made != files, name
        write(altered, made)
        assert refuses(altered, site), f"calltrail overlooks {name}"
        assert standalone(altered, site.vkey) == 1, f"the script overlooks {name}"
    assert capsys.readouterr().out.count("ALTERED") == len(ways)


async def test_a_bundle_of_another_log_is_not_taken(site: Site, tmp_path: Path) -> None:
    path = await site.bundle()
    other = load_keys(tmp_path / "other")
    with pytest.raises(TlogError):
        verify_bundle(path, other.verifiers)
    assert standalone(path, other.trusted[0].encode()) == 1


async def test_what_is_no_bundle_is_said_to_be_none(site: Site, tmp_path: Path) -> None:
    path = await site.bundle()
    broken = tmp_path / "broken.zip"
    for data in (b"", b"PK", path.read_bytes()[:-40], path.read_bytes()[:100]):
        broken.write_bytes(data)
        with pytest.raises(TlogError):
            verify_bundle(broken, verifiers(site))
        assert standalone(broken, site.vkey) == 1


async def test_no_markup_and_no_formula_of_userdata_comes_alive(site: Site) -> None:
    files = dict(read(await site.bundle()))
    assert b"<script>alert" not in files["report.html"]
    assert b"&lt;script&gt;alert" in files["report.html"]
    rows = list(csv.DictReader(files["transfers.csv"].decode("utf-8-sig").splitlines()))
    row = next(row for row in rows if row["call_id"] == "C1")
    assert row["reason"] == f"'{HOSTILE}"
    assert (row["agent"], row["caller"], row["destination"]) == ("'=1+1", "'@eve", "'-5")


async def test_tables_have_the_same_rows_in_every_format(site: Site, tmp_path: Path) -> None:
    made = {}
    for form in ("csv", "jsonl", "parquet"):
        made[form] = await site.exporter.export(EVERYTHING, form, by="Ada", target=tmp_path / form)
    lines = [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "parquet")
    assert table.column_names == [column.name for column in COLUMNS]
    assert all(field.metadata[b"comment"] for field in table.schema)
    assert [row["transfer_id"] for row in table.to_pylist()] == [line["transfer_id"] for line in lines]
    with (tmp_path / "csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["transfer_id"] for row in csv.DictReader(file)] == [line["transfer_id"] for line in lines]
    for form, exported in made.items():
        assert exported.sha256 == hashlib.sha256((tmp_path / form).read_bytes()).hexdigest()
        [event] = await site.log.at([exported.position])
        assert json.loads(event.payload)["sha256"] == exported.sha256


async def test_reports_are_written_for_people(site: Site, tmp_path: Path) -> None:
    for form, start in (("html", b"<!doctype html>"), ("pdf", b"%PDF-")):
        await site.exporter.export(EVERYTHING, form, by="Ada", target=tmp_path / form)
        assert (tmp_path / form).read_bytes().startswith(start)
    assert "destination&#39;s leg seen" in (tmp_path / "html").read_text()


async def test_a_sample_is_the_same_for_the_same_seed(site: Site, tmp_path: Path) -> None:
    drawn = []
    for number, seed in enumerate((7, 7, 8)):
        target = tmp_path / str(number)
        made = await site.exporter.export(Wanted(sample=5, seed=seed), "jsonl", by="Ada", target=target)
        assert made.transfers == 5
        drawn.append(target.read_text())
    assert drawn[0] == drawn[1] != drawn[2]


async def test_any_filter_of_the_list_chooses_what_is_exported(site: Site, tmp_path: Path) -> None:
    wanted = TransferFilter(user_data=(("TransferReason", "Sales"),), commanded=True)
    made = await site.exporter.export(Wanted(wanted), "jsonl", by="Ada", target=tmp_path / "sales")
    rows = [json.loads(line) for line in (tmp_path / "sales").read_text().splitlines()]
    expected = [one for one in await site.queries.transfers(limit=1000) if one["reason"] == "Sales"]
    assert {row["transfer_id"] for row in rows} == {str(row["transfer_id"]) for row in expected}
    assert 0 < made.transfers == len(rows)
    [event] = await site.log.at([made.position])
    assert json.loads(event.payload)["asked"] == "data TransferReason=Sales, commanded true"


async def test_a_range_of_time_means_the_time_that_the_rows_give(site: Site, tmp_path: Path) -> None:
    """GWS's clock and ours differ; what is asked for by the one is told by the same."""
    told = await site.log.database.pool.fetch(
        "SELECT transfer_id, requested_at, recorded_at FROM analytics.fact_transfer ORDER BY requested_at"
    )
    assert any(abs(row["requested_at"] - row["recorded_at"]) > timedelta(seconds=1) for row in told)
    since, until = told[2]["requested_at"], told[-2]["requested_at"]
    wanted = Wanted(TransferFilter(since=since, until=until))
    await site.exporter.export(wanted, "jsonl", by="Ada", target=tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert {(row["transfer_id"], row["requested_at"], row["recorded_at"]) for row in rows} == {
        (str(row["transfer_id"]), rfc3339(row["requested_at"]), rfc3339(row["recorded_at"]))
        for row in told
        if since <= row["requested_at"] < until
    }


async def test_an_empty_selection_makes_a_bundle_that_says_so(site: Site) -> None:
    path = await site.bundle(Wanted(TransferFilter(agent="nobody")))
    assert verify_bundle(path, verifiers(site)).transfers == 0
    assert "No transfer in this time." in dict(read(path))["report.html"].decode()


@pytest.mark.parametrize(
    ("form", "by", "field"), [("docx", "Ada", "format"), ("csv", "  ", "by")], ids=["format", "by"]
)
async def test_what_cannot_be_exported_is_refused(site: Site, form: str, by: str, field: str) -> None:
    target = site.folder / "out"
    with pytest.raises(BadInput) as refused:
        await site.exporter.export(EVERYTHING, form, by=by, target=target)
    assert refused.value.field == field
    assert not target.exists()
    assert await site.log.read_stream("audit") == []


def test_a_sample_of_none_is_refused() -> None:
    with pytest.raises(BadInput, match="sample"):
        Wanted(sample=0)
