"""Clients of others through the tap: httpx2, curl, and CometD's own JavaScript client in a browser."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tapping import Tapped, inject, tapped

from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator

ROOT = Path(__file__).parents[3]
COMETD = Path(os.environ.get("CALLTRAIL_TEST_NODE_MODULES", ROOT / "node_modules")) / "cometd"
BASIC = ("15000", "secret-15000")
DEADLINE_S = 30.0


async def recorded(site: Tapped, bodies: list[bytes]) -> None:
    """Wait until that is what is recorded."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = site.log.watch.next_position - 1
            if len(found := await site.bodies()) >= len(bodies):
                assert found == bodies
                return
            await site.log.watch.beyond(seen)


async def test_httpx(database: Database, log: EventLog) -> None:
    httpx = pytest.importorskip("httpx2")
    async with (
        Simulator(seed=1, csrf=True) as simulator,
        tapped(database, log, simulator) as site,
        httpx.AsyncClient(base_url=site.tap.url, auth=BASIC) as http,
    ):
        me = await http.get("/api/v2/me")
        http.headers[me.headers["X-CSRF-HEADER"]] = me.headers[me.headers["X-CSRF-HEADER"]]
        call = simulator.place_call("15001", "15000")
        simulator.answer(call.id, "15000")
        transfer = {"operationName": "SingleStepTransfer", "destination": {"phoneNumber": "15002"}}
        answers = [
            await http.post(f"/api/v2/me/calls/{call.id}", json=transfer, headers={"Idempotency-Key": "1"})
            for _ in range(2)
        ]
        assert [one.json() for one in answers] == [{"statusCode": 0}] * 2
        assert len(simulator.truth.transfers_of(call.id)) == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not at hand")
async def test_curl(database: Database, log: EventLog, tmp_path: Path) -> None:
    async with Simulator(seed=1) as simulator, tapped(database, log, simulator) as site:
        jar = str(tmp_path / "cookies")

        async def curl(path: str, *options: str) -> Any:
            process = await asyncio.create_subprocess_exec(
                *("curl", "-sS", "--fail-with-body", "-u", ":".join(BASIC), "-b", jar, "-c", jar, *options),
                site.tap.url + path,
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await process.communicate()
            return json.loads(out)

        assert (await curl("/api/v2/me", "--http1.1"))["user"]["userName"] == "15000"
        assert (await curl("/api/v2/me", "--http2"))["statusCode"] == 0  # asks for h2c, and gets HTTP/1.1
        hello = {"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}
        [reply] = await curl("/api/v2/notifications", "-d", json.dumps([hello]))
        client_id = reply["clientId"]
        for message in (
            {"channel": "/meta/subscribe", "subscription": "/v2/me/calls"},
            {"channel": "/meta/connect", "connectionType": "long-polling", "advice": {"timeout": 0}},
        ):
            bodies = inject(simulator, range(1))
            said = json.dumps([{"id": "2", "clientId": client_id, **message}])
            answer = await curl(
                "/api/v2/notifications",
                "-H",
                "Transfer-Encoding: chunked",
                "-H",
                "Expect: 100-continue",
                "-d",
                said,
            )
        assert answer[0] == json.loads(bodies[0])
        await recorded(site, bodies)


PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
import {CometD, AckExtension} from "/cometd/cometd.js";
window.given = [];
await (await fetch("/api/v2/me", {headers: {Authorization: AUTHORIZATION}})).json();
const cometd = new CometD();
cometd.registerExtension("ack", new AckExtension());
cometd.unregisterTransport("websocket");
cometd.configure({
    url: location.origin + "/api/v2/notifications",
    requestHeaders: {Authorization: AUTHORIZATION},
    appendMessageTypeToURL: true,
});
cometd.addListener("/meta/connect", message => { window.connected = message.successful; });
cometd.handshake(reply => {
    if (reply.successful) cometd.subscribe("/v2/me/calls", message => window.given.push(message.data.number));
});
window.leave = () => new Promise(resolve => cometd.disconnect(resolve));
</script>"""


@pytest.mark.skipif(
    not COMETD.is_dir(), reason="CometD's client is not at hand: npm install --no-save cometd"
)
async def test_cometds_own_client_in_a_browser(database: Database, log: EventLog) -> None:
    playwright = pytest.importorskip("playwright.async_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is at hand")
    authorization = json.dumps("Basic MTUwMDA6c2VjcmV0LTE1MDAw")

    async def serve(route: Any) -> None:
        path = route.request.url.partition("://")[2].partition("/")[2]
        if path == "page":
            await route.fulfill(content_type="text/html", body=PAGE.replace("AUTHORIZATION", authorization))
        elif path.startswith("cometd/"):
            await route.fulfill(
                content_type="text/javascript", body=(COMETD / path.removeprefix("cometd/")).read_text()
            )
        else:
            await route.continue_()

    async with (
        Simulator(seed=1, timeout_ms=1_000) as simulator,
        tapped(database, log, simulator) as site,
        playwright.async_playwright() as driver,
    ):
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = await browser.new_page()
            await page.route("**/*", serve)
            await page.goto(site.tap.url + "/page")
            await page.wait_for_function("window.connected")
            [opened] = await site.until("SessionOpened")
            assert (opened.agent, opened.ack) == ("15000", True)
            bodies = inject(simulator, range(3))
            await page.wait_for_function("window.given.length === 3")
            bodies += inject(simulator, range(3, 5))
            await page.wait_for_function("window.given.length === 5")
            assert await page.evaluate("window.given") == [0, 1, 2, 3, 4]
            await recorded(site, bodies)
            await page.evaluate("window.leave()")
            [closed] = await site.until("SessionClosed")
            assert closed.session == opened.session
        finally:
            await browser.close()
