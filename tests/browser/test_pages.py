"""The pages as documents: headers, URLs, bad input, files tested, and the same answers elsewhere."""

from __future__ import annotations

import asyncio
import html
import re
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from site_under_test import Site, open_site
from sqlalchemy.engine import URL

from service.log.checkpoints import Checkpoints, load_keys
from service.tlog.checkpoint import Checkpoint
from service.tlog.evidence import Evidence
from service.tlog.note import Ed25519Signer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(
    server_url: URL, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    async with open_site(server_url, template, tmp_path_factory.mktemp("site"), calls=5) as opened:
        yield opened


async def get(site: Site, path: str, status: int = 200, **headers: str) -> tuple[str, dict[str, str]]:
    async with site.http.get(site.url + path, headers=headers, allow_redirects=False) as response:
        assert response.status == status, await response.text()
        return await response.text(), {name.lower(): value for name, value in response.headers.items()}


async def post(site: Site, path: str, data: Any, status: int = 200, **headers: str) -> str:
    async with site.http.post(site.url + path, data=data, headers=headers, allow_redirects=False) as response:
        assert response.status == status, await response.text()
        return await response.text()


async def judged(site: Site, content: bytes) -> str:
    """What the page says of an uploaded file, as text."""
    form = aiohttp.FormData()
    form.add_field("file", content, filename="file", content_type="application/octet-stream")
    page = await post(site, "/trust/file", form)
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


@pytest.mark.parametrize("path", ["/", "/calls", "/transfers", "/reasons", "/trust"])
async def test_no_page_lets_anything_run_that_is_not_its_own(site: Site, path: str) -> None:
    page, headers = await get(site, path)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<[a-z][^>]*\s(style|on\w+)=", page), (
        "inline styles and handlers are refused by the policy"
    )
    assert not re.search(r"<script(?![^>]* src=)", page)
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


async def test_pages_and_files_are_compressed_and_not_sent_twice(site: Site) -> None:
    page, headers = await get(site, "/reasons", **{"Accept-Encoding": "gzip"})
    assert headers["content-encoding"] == "gzip"
    assert headers["cache-control"] == "no-cache"
    await get(site, "/reasons", 304, **{"If-None-Match": headers["etag"]})
    await get(site, "/reasons?by=agent", 200, **{"If-None-Match": headers["etag"]})
    style = re.search(r'href="(/static/style.css[^"]*)"', page)
    assert style is not None
    _, headers = await get(site, style[1])
    assert "immutable" in headers["cache-control"]
    await get(site, style[1], 304, **{"If-None-Match": headers["etag"]})


async def test_every_link_leads_somewhere(site: Site) -> None:
    """All pages that can be reached in three clicks: no dead link, and none to another host."""
    known, new = set[str](), {"/"}
    for _ in range(3):
        found = set[str]()
        for path in sorted(new - known)[:60]:
            page, headers = await get(site, path)
            if headers["content-type"].startswith("text/html"):
                found |= {html.unescape(one).partition("#")[0] for one in re.findall(r'href="([^"]+)"', page)}
        known |= new
        new = {one for one in found if one}
    assert all(one.startswith("/") for one in known)
    assert {"/calls", "/transfers", "/reasons", "/trust", "/openapi.json", "/tlog/checkpoint"} <= known


async def test_a_transfer_is_shown_as_it_was_known(site: Site) -> None:
    async with site.http.get(site.url + "/v1/transfers?limit=1000&commanded=true") as response:
        listed = (await response.json())["transfers"]
    transfer = next(one for one in listed if one["outcome"] == "confirmed")
    path = f"/transfers/{transfer['transfer_id']}"
    now, _ = await get(site, path)
    assert "Back to now" not in now
    links = re.findall(rf'href="({path}\?as_of=\d+)">known then', now)
    assert len(links) == len({*transfer["evidence"], *(step["position"] for step in transfer["steps"])})
    then, _ = await get(site, links[0])
    assert ">requested<" in then.lower()
    assert ">confirmed<" not in then.lower()
    assert f'href="{path}">Back to now' in then
    assert f"/v1{path}?as_of={transfer['first_position']}" in html.unescape(then), "curl"
    last, _ = await get(site, links[-1])
    assert ">confirmed<" in last.lower()
    await get(site, f"{path}?as_of={transfer['first_position'] - 1}", 404)


async def test_a_state_has_one_url(site: Site) -> None:
    _, headers = await get(site, "/transfers?agent=&reason=Billing&until=&data=Segment%3DPrivate", 303)
    assert headers["location"] == "/transfers?reason=Billing&data=Segment%3DPrivate"
    page, _ = await get(site, headers["location"])
    assert 'value="Billing"' in page
    assert 'value="Segment=Private"' in page


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/calls/unknown", 404, "nothing is recorded of call unknown"),
        ("/transfers/unknown", 404, "there is no transfer unknown"),
        ("/transfers/00000000-0000-0000-0000-000000000000", 404, "there is no transfer"),
        ("/transfers?since=yesterday", 400, "since"),
        ("/transfers?since=2026-02-02&until=2026-01-01", 400, "Swap the two"),
        ("/transfers?sort=colour", 400, "sort"),
        ("/transfers?cursor=nonsense", 400, "cursor"),
        ("/transfers?data=novalue", 400, "data"),
        ("/transfers?agent=%00", 400, "agent"),
        ("/transfers?hour=99", 400, "hour"),
        ("/reasons?by=colour", 400, "no dimension"),
        ("/reasons?bucket=minute", 400, "bucket"),
        ("/reasons?bucket=hour&since=1980-01-01&until=2990-01-01", 400, "Take a larger one"),
        ("/?as_of=never", 400, "as_of"),
        ("/?as_of=99999999", 400, "beyond the end of the log"),
        (f"/?as_of={'9' * 5_000}", 400, "Write a position"),
    ],
)
async def test_bad_input_is_told_on_a_page(site: Site, path: str, status: int, told: str) -> None:
    page, headers = await get(site, path, status)
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert told in html.unescape(page)


async def test_a_step_that_is_none_is_told(site: Site) -> None:
    call_id = next(iter(site.simulator.calls))
    for step in ("0", "9999", "9" * 5_000, "x"):
        page, _ = await get(site, f"/calls/{call_id}?step={step}", 400)
        assert "step" in page
    page, _ = await get(site, f"/calls/{call_id}?at=0")
    assert "Step 1 of" in page


async def test_what_is_copied_gives_the_same_answer(site: Site) -> None:
    """The curl runs, and so does each SQL; their numbers are those of the page."""
    page, _ = await get(site, "/transfers?outcome=confirmed")
    total = int(re.search(r">(\d+) transfers?<", page)[1])  # type: ignore[index]
    curl, sql = copied(page)
    found = await asyncio.to_thread(subprocess.run, curl, shell=True, capture_output=True, check=True)
    assert f'"total":{total}'.encode() in found.stdout.replace(b" ", b"")
    assert len(await site.database.pool.fetch(sql)) == total > 0
    for path in ("/", "/?agent=15000&as_of=5", "/reasons?reason=Billing&by=data.Segment", "/trust"):
        page, _ = await get(site, path)
        for way in copied(page):
            if not way.startswith("curl"):
                await site.database.pool.fetch(way)


def copied(page: str) -> list[str]:
    return [
        html.unescape(text) for text in re.findall(r'<pre id="copy-\d+"[^>]*>(.*?)</pre>', page, re.DOTALL)
    ]


async def test_pages_of_the_list_have_every_transfer_once(site: Site, monkeypatch: Any) -> None:
    monkeypatch.setattr("service.web.transfers.PAGE", 2)
    path, seen = "/transfers?sort=agent", list[str]()
    while path:
        page, _ = await get(site, path)
        found = re.findall(r'href="/transfers/([0-9a-f-]{36})"', page)
        assert not set(found) & set(seen)
        seen += found
        following = re.search(r'href="([^"]*)" rel="next"', page)
        path = html.unescape(following[1]) if following else ""
    assert len(seen) == len(site.day.requested)


async def test_files_are_judged_by_what_they_are(site: Site) -> None:
    checkpoints = Checkpoints(site.database, load_keys(site.application.settings.data_dir))
    evidence = await checkpoints.prove(3)
    assert "Proved" in await judged(site, evidence.encode())
    assert "Proved" in await judged(site, evidence.proof.encode())
    assert "Proved" in await judged(site, (await checkpoints.latest()).encode())
    keys = load_keys(site.application.settings.data_dir)
    other = Checkpoint(keys.origin, 3, bytes(32)).sign(map(Ed25519Signer, keys.signers))
    assert "are not those that it signed" in await judged(site, other.encode())
    longer = Checkpoint(keys.origin, 1 << 40, bytes(32)).sign(map(Ed25519Signer, keys.signers))
    assert "this log has fewer" in await judged(site, longer.encode())
    forged = Evidence(evidence.proof, evidence.entry, (evidence.payload or b"") + b" ", evidence.salt)
    assert "Not proved" in await judged(site, forged.encode())
    moved = evidence.proof.encode().replace(b"index 3", b"index 4")
    assert "Not proved" in await judged(site, moved)
    async with site.http.post(f"{site.url}/v1/exports", json={"format": "bundle", "by": "Ada"}) as response:
        bundle = await response.read()
    assert "an audit's bundle" in await judged(site, bundle)
    middle = len(bundle) // 2
    broken = bundle[:middle] + bytes([bundle[middle] ^ 1]) + bundle[middle + 1 :]
    assert "Not proved" in await judged(site, broken)


@pytest.mark.parametrize("content", [b"hello", b"PK", b'{"format": 1}'])
async def test_a_file_of_another_kind_is_refused(site: Site, content: bytes) -> None:
    form = aiohttp.FormData()
    form.add_field("file", content, filename="x")
    assert "Upload what calltrail export" in await post(site, "/trust/file", form, 400)


async def test_a_body_that_is_too_large_is_not_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.web.proving.LARGEST_FILE", 1_000)
    for path, size in (("/trust/file", 2_000), ("/transfers/export", 30_000)):
        assert "has more than" in await post(site, path, b"a" * size, 400)


async def test_a_form_without_a_file_is_refused(site: Site) -> None:
    assert "Choose a file" in await post(site, "/trust/file", b"", 400)


async def test_another_sites_page_cannot_make_a_browser_act(site: Site) -> None:
    for path in ("/trust/verification", "/trust/file", "/transfers/export"):
        assert "another site" in await post(site, path, b"", 400, **{"Sec-Fetch-Site": "cross-site"})


async def test_a_verification_is_written_down_in_the_log_itself(site: Site) -> None:
    await post(site, "/trust/verification", b"", 303)
    async with asyncio.timeout(20):
        async for page in site.application.log.follow(after=-1):
            if any(event.kind == "LogVerified" for event in page):
                break
    page, _ = await get(site, "/trust")
    assert '<dd><span class="mark">intact</span></dd>' in page


async def test_an_export_takes_the_filter_of_the_page(site: Site) -> None:
    wanted = "outcome=confirmed&amp;commanded=true"
    page, _ = await get(site, "/transfers?outcome=confirmed&commanded=true")
    assert f'action="/transfers/export?{wanted}"' in page
    way = "/transfers/export?outcome=confirmed&commanded=true"
    text = await post(site, way, {"format": "csv", "by": "Ada"})
    assert f">{len(text.splitlines()) - 1} transfers<" in page
    assert "by" in await post(site, way, {"format": "csv"}, 400)


async def test_live_tells_how_far_the_views_are(site: Site) -> None:
    async with site.http.get(f"{site.url}/live") as response:
        assert response.content_type == "text/event-stream"
        first = await response.content.readline()
        site.simulator.place_call("0309998000", next(iter(site.simulator.agents)))
        async with asyncio.timeout(20):
            async for line in response.content:
                if line.startswith(b"data: "):
                    break
    assert int(line.split()[1]) > int(first.split()[1])
