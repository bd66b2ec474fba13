"""``/v1/transfers`` and ``/v1/analytics``: paging, forms, links, and what is wrong with a request."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL
from transfer_site import Site, open_site

from service.api.filters import read_filter
from service.api.tables import to_csv
from service.cli.bench_faces import make_facts
from service.simulator import Simulator


@pytest.fixture
async def site(database_url: URL) -> AsyncIterator[Site]:
    async with (
        Simulator(seed=1, agent_count=4) as simulator,
        open_site(database_url, simulator, folding=True) as opened,
    ):
        yield opened


async def transferred(site: Site, number: int, **user_data: Any) -> str:
    """A call that was transferred by command, and is in the views."""
    call = await site.seen_call("15000", f"0301{number:06d}")
    await site.command(call.id, userData=user_data)
    transfer = await site.ended(call.id)
    site.simulator.tell(site.simulator.switch.clear(call))
    await site.recorded(
        f"call-{call.id}", lambda event: b'"15002"' in event.payload and b"Released" in event.payload
    )
    assert await site.services.engine.reached(await site.log.next_position() - 1, timeout_s=60)
    return str(transfer.id)


async def test_pages_stay_as_they_are_while_transfers_come(site: Site) -> None:
    first = [await transferred(site, number, TransferReason="Sales") for number in range(3)]
    for sort in ("-time", "time", "agent", "-destination", "outcome"):
        page = (await site.get(f"/v1/transfers?limit=2&sort={sort}")).json
        assert page["total"] == len(first)
        shown = [one["transfer_id"] for one in page["transfers"]]
        new = await transferred(site, 10, TransferReason="Sales")
        following = await site.get(f"/v1/transfers?limit=2&sort={sort}&cursor={page['next']}")
        shown += [one["transfer_id"] for one in following.json["transfers"]]
        while following.json["next"]:
            following = await site.get(f"/v1/transfers?limit=2&sort={sort}&cursor={following.json['next']}")
            shown += [one["transfer_id"] for one in following.json["transfers"]]
        assert following.json["total"] == len(first)
        assert len(shown) == len(set(shown))
        assert set(shown) == set(first), sort
        first.append(new)
    newest = (await site.get("/v1/transfers?limit=1")).json
    assert newest["transfers"][0]["transfer_id"] == first[-1]
    everything = (await site.get("/v1/transfers")).json["transfers"]
    assert [one["requested_at"] for one in everything] == sorted(
        (one["requested_at"] for one in everything), reverse=True
    )


async def test_links_tags_forms_and_the_trail(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "=HYPERLINK(1)"
    transfer_id = await transferred(site, 1, TransferReason=evil, Note="<b>", Segment="Gold")
    await transferred(site, 2, TransferReason="Sales", Segment="Gold")

    page = await site.get("/v1/transfers?limit=1&data=Segment%3DGold")
    following = page.headers["Link"].split("<")[-1].split(">")[0]
    assert 'rel="next"' in page.headers["Link"]
    assert (await site.get(following)).json["transfers"][0]["transfer_id"] == transfer_id

    tag = page.headers["ETag"]
    async with site.http.get(
        f"{site.url}/v1/transfers?limit=1&data=Segment%3DGold", headers={"If-None-Match": tag}
    ) as again:
        assert again.status == 304
    async with site.http.get(f"{site.url}/v1/transfers", headers={"Accept": "text/csv"}) as table:
        rows = list(csv.DictReader(io.StringIO(await table.text())))
        assert table.headers["Content-Encoding"] == "gzip"
    assert {row["reason"] for row in rows} == {"Sales", f"'{evil}"}
    parquet = pytest.importorskip("pyarrow.parquet")
    answer = await site.get("/v1/analytics/counts?format=parquet")
    assert sorted(parquet.read_table(io.BytesIO(answer.body))["value"].to_pylist()) == sorted([evil, "Sales"])

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = await site.get("/v1/analytics/counts?format=parquet")
    assert refused.status == 400
    assert "pip install 'calltrail[export]'" in refused.json["detail"]

    trail = (await site.get(f"/v1/transfers/{transfer_id}")).json
    assert (trail["reason"], trail["outcome"], trail["gaps"]) == (evil, "confirmed", [])
    for event in trail["events"]:
        assert (await site.get(event["event"])).json["kind"] == event["kind"]
        assert (await site.get(event["proof"])).status == 200

    counts = (await site.get("/v1/analytics/counts")).json
    assert counts["fresh"]["lag_events"] == 0
    assert await site.database.pool.fetch(counts["sql"])
    for row in counts["rows"]:
        behind = (await site.get(row["transfers_behind"])).json
        assert behind["total"] == row["transfers"] == 1
    for path in ("over-time", "rate", "talk-before-transfer", "chains", "pairs", "hour-of-week", "quality"):
        answer = await site.get(f"/v1/analytics/{path}")
        assert answer.status == 200, answer.body
        assert answer.json["rows"], path
    before = (await site.get("/v1/analytics/counts?as_of=0")).json
    assert before["rows"] == []


@pytest.fixture
async def site_at_rest(database_url: URL) -> AsyncIterator[Site]:
    """Made-up facts, and nobody at work."""
    async with (
        Simulator(seed=1, agent_count=4) as simulator,
        open_site(database_url, simulator, recording=False, settling=False, queueing=False) as opened,
    ):
        await make_facts(opened.database, 50)
        yield opened


WRONG = [
    ("/v1/transfers?since=never", "since"),
    ("/v1/transfers?since=2026-01-02&until=2026-01-01", "since"),
    ("/v1/transfers?since=0001-01-01", "since"),
    ("/v1/transfers?agent=%00", "agent"),
    ("/v1/transfers?agent=" + "x" * 1_001, "agent"),
    ("/v1/transfers?data=Segment", "data"),
    ("/v1/transfers?data==", "data"),
    ("/v1/transfers?sort=shoe-size", "sort"),
    ("/v1/transfers?limit=1001", "limit"),
    ("/v1/transfers?cursor=nonsense", "cursor"),
    ("/v1/transfers?cursor=" + quote("WyItdGltZSIsLTEsIngiLDEsIngiXQ"), "cursor"),
    ("/v1/transfers?weekday=8", "weekday"),
    ("/v1/transfers?min_talk_s=nan", "min_talk_s"),
    ("/v1/transfers?before_position=99999999999999999999", "before_position"),
    ("/v1/transfers?as_of=99999999", "as_of"),
    ("/v1/transfers?format=xlsx", "format"),
    ("/v1/analytics/counts?by=shoe-size", "by"),
    ("/v1/analytics/counts?by=data.", "by"),
    ("/v1/analytics/counts?top=0", "top"),
    ("/v1/analytics/over-time?bucket=second", "bucket"),
    ("/v1/analytics/over-time?bucket=hour&since=1990-01-01&until=2026-01-01", "bucket"),
    ("/v1/transfers/nonsense", "transfer_id"),
]
"""Requests, and the field that is named."""


async def test_what_is_wrong_is_named_and_what_is_large_is_answered(site_at_rest: Site) -> None:
    for query, field in WRONG:
        answer = await site_at_rest.get(query)
        assert answer.status == 400, (query, answer.body)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json["field"] == field

    unknown = await site_at_rest.get(f"/v1/transfers/{uuid4()}")
    assert unknown.status == 404
    assert unknown.json["type"] == "urn:calltrail:problem:NotFound"

    wanted = read_filter(agent="15007", data=["a=b=c", "Größe=1"], in_doubt=False, min_talk_s=0.5, weekday=7)
    answer = await site_at_rest.get(f"/v1/transfers?{urlencode(wanted.as_query())}")
    assert (answer.status, answer.json["total"]) == (200, 0)

    huge = "since=1970-01-01&until=2300-01-01"
    assert (await site_at_rest.get(f"/v1/transfers?{huge}")).json["total"] == 50
    months = (await site_at_rest.get(f"/v1/analytics/over-time?bucket=month&{huge}")).json["rows"]
    assert sum(row["transfers"] for row in months) == 50


def test_no_cell_is_a_formula() -> None:
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "harmless", "a=b"]
    rows = list(csv.reader(io.StringIO(to_csv([{"cell": cell} for cell in cells]).decode(), newline="")))
    assert [row[0] for row in rows[1:]] == [*(f"'{cell}" for cell in cells[:6]), "harmless", "a=b"]
