"""The pages in a real Chromium: what is seen, what it can do without a mouse, and that nothing gets in."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from day import SCRIPT
from site_under_test import Site, open_site
from sqlalchemy.engine import URL

from service.simulator.truth import ExecutedTransfer

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NEED = "the pages' tests need playwright and axe-playwright-python: pip install -e '.[browser]'"
playwright_api = pytest.importorskip("playwright.async_api", reason=NEED)
axe_api = pytest.importorskip("axe_playwright_python.async_playwright", reason=NEED)
if CHROMIUM is None:
    pytest.skip("the pages' tests need a Chromium: apt-get install chromium", allow_module_level=True)

expect = playwright_api.expect
expect.set_options(timeout=20_000)
pytestmark = pytest.mark.asyncio(loop_scope="module")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
TALL = {"width": 1280, "height": 1120}  # for pictures
CALLS = 20
MOST_BYTES = 200_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(
    server_url: URL, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    async with open_site(server_url, template, tmp_path_factory.mktemp("site"), calls=CALLS) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(site: Site) -> AsyncIterator[Browser]:
    async with playwright_api.async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        await launched.close()


@asynccontextmanager
async def page_of(browser: Browser, site: Site, path: str = "/", **options: Any) -> AsyncIterator[Page]:
    """A page in a fresh context; in the end, nothing was complained of and nothing came from elsewhere."""
    options = {"viewport": WIDE, "color_scheme": "light", **options}
    context = await browser.new_context(base_url=site.url, **options)
    page = await context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    await page.goto(path)
    yield page
    await context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(site.url)] == []


async def paths(site: Site) -> dict[str, str]:
    """Every page, with something on it: the call that was passed on most often, and one of its transfers."""
    async with site.http.get(f"{site.url}/v1/transfers", params={"limit": 1000}) as response:
        listed = (await response.json())["transfers"]
    one = max(listed, key=lambda transfer: (transfer["chain_length"], transfer["call_id"]))
    return {
        "now": "/",
        "calls": "/calls",
        "call": f"/calls/{one['call_id']}",
        "transfers": "/transfers",
        "transfer": f"/transfers/{one['transfer_id']}",
        "transfer, then": f"/transfers/{one['transfer_id']}?as_of={one['position_known']}",
        "reasons": "/reasons",
        "trust": "/trust",
    }


async def test_every_page_is_accessible_and_fits_a_phone(site: Site, browser: Browser) -> None:
    axe = axe_api.Axe()
    for name, path in (await paths(site)).items():
        async with page_of(browser, site, path) as page:
            light = await axe.run(page)
            assert light.violations_count == 0, f"{name}: {light.generate_report()}"
            await page.emulate_media(color_scheme="dark")
            dark = await axe.run(page)
            assert dark.violations_count == 0, f"{name}, dark: {dark.generate_report()}"
            await page.set_viewport_size(NARROW)
            too_wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert too_wide <= 0, f"{name} scrolls sideways on a phone"


async def test_what_a_customer_wrote_stays_text(site: Site, browser: Browser) -> None:
    call_id = next(iter(site.simulator.calls))
    for path in (f"/calls/{call_id}", f"/calls/{call_id}?step=1&raw=1"):
        async with page_of(browser, site, path) as page:
            await expect(page.locator("main")).to_contain_text(SCRIPT if "raw" not in path else "broken in")
            assert await page.locator("main :is(script, img, iframe)").count() == 0
            assert "calltrail" in await page.title()


async def test_the_figures_are_those_of_the_simulator(site: Site, browser: Browser) -> None:
    requested = site.day.count_by("reason")
    executed = Counter(map(reason_of, site.simulator.truth.transfers))
    async with page_of(browser, site, "/reasons") as page:
        assert await page.locator("#reasons-figures dd").first.inner_text() == str(requested.total())
        shown = {}
        for row in await page.locator("#reasons-time tbody tr").all():
            name = await row.locator("th").inner_text()
            cells = await row.locator("td").all_inner_texts()
            shown[name] = (int(cells[0]), int(cells[2]))
        assert shown == {name: (count, executed[name]) for name, count in requested.items()}
        bands = await page.locator(".sankey .flow title").all_text_contents()
        pairs = Counter((one["agent"], one["destination"]) for one in site.day.requested)
        for band in bands:
            agent, destination, count = re.fullmatch(r"(\S+) to (\S+): (\d+)", band).groups()
            assert pairs[agent, destination] == int(count)
        hours = await page.locator(".heat a title").all_text_contents()
        assert sum(int(hour.rpartition(" ")[2]) for hour in hours) == requested.total()
        talks = await page.locator("#reasons-talk svg title").all_text_contents()
        assert sum(map(int, talks)) == requested.total()
        name, count = requested.most_common(1)[0]
        await page.locator("#reasons-time").get_by_role("link", name=name).click()
        await expect(page.locator("#list-title")).to_have_text(f"{count} transfers")
        await expect(page.get_by_label("Reason", exact=True)).to_have_value(name)


async def test_the_slider_goes_through_the_call_by_keyboard_and_by_url(site: Site, browser: Browser) -> None:
    async with page_of(browser, site, (await paths(site))["call"]) as page:
        slider = page.get_by_label("Step", exact=True)
        last = int(await slider.input_value())
        assert await tab_to(page, "slider")
        await page.keyboard.press("ArrowLeft")
        await expect(page.locator("#call-told")).to_contain_text(f"Step {last - 1} of {last}")
        assert await slider.get_attribute("aria-valuetext") is not None
        await expect(page).to_have_url(re.compile(rf"step={last - 1}"))
        await page.keyboard.press("Home")
        await expect(page.locator("#call-told")).to_contain_text(f"Step 1 of {last}")
        await expect(page.locator("#call-state")).to_contain_text("Ringing")
        told = await page.locator("#call-told").inner_text()
        await page.reload()
        await expect(page.locator("#call-told")).to_have_text(told)
        await page.locator(".steps a").nth(2).click()
        await expect(page.locator("#call-told")).to_contain_text(f"Step 3 of {last}")


def reason_of(transfer: ExecutedTransfer) -> str:
    """The reason that came with a transfer itself, not with one before it on the same call."""
    data = dict(transfer.user_data)
    own = data.get("TransferAgent") == f"Agent{transfer.agent}"
    return str(data["TransferReason"]) if own else "unknown"


async def tab_to(page: Page, wanted: str) -> bool:
    """Press Tab until the element of this id has the focus."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.id") == wanted:
            return True
    return False


async def test_menus_open_and_close_by_keyboard(site: Site, browser: Browser) -> None:
    async with page_of(browser, site, "/transfers?reason=Billing") as page:
        menu = page.locator("details.menu")
        await menu.locator("summary").focus()
        await page.keyboard.press("Enter")
        await expect(menu.locator("pre").first).to_contain_text("/v1/transfers?reason=Billing")
        await page.keyboard.press("Escape")
        await expect(menu.locator("pre").first).to_be_hidden()
        await page.keyboard.press("Shift+Tab")
        await expect(page.get_by_role("button", name="Pause")).to_be_focused()
        await page.keyboard.press("Shift+Tab")
        await expect(page.get_by_role("link", name="Trust", exact=True)).to_be_focused()


async def test_a_page_is_live_until_it_is_told_not_to_be(site: Site, browser: Browser) -> None:
    agents = list(site.simulator.agents)
    async with page_of(browser, site, "/") as page:
        await expect(page.locator("#live-told")).to_contain_text("Live")
        first = site.simulator.place_call("0309999001", agents[0])
        await expect(page.locator("#now-calls")).to_contain_text("0309999001")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#live-told")).to_have_text("Paused")
        second = site.simulator.place_call("0309999002", agents[1])
        await expect(page.get_by_role("button", name="Resume")).to_be_visible()
        await site.day.recorded(second.id)
        await site.settled()
        assert "0309999002" not in await page.locator("#now-calls").inner_text()
        await page.get_by_role("button", name="Resume").click()
        await expect(page.locator("#now-calls")).to_contain_text("0309999002")
    for call in (first, second):
        site.simulator.tell(site.simulator.switch.clear(call))


async def test_without_javascript_everything_but_liveness_works(site: Site, browser: Browser) -> None:
    async with page_of(browser, site, (await paths(site))["call"], java_script_enabled=False) as page:
        await page.get_by_label("Step", exact=True).fill("2")
        await page.get_by_role("button", name="Go").click()
        await expect(page.locator("#call-told")).to_contain_text("Step 2 of")
        await page.get_by_role("link", name="Reasons").click()
        await page.get_by_label("By", exact=True).fill("agent")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("#time-title")).to_have_text("Over time, by agent")
        await expect(page).to_have_url(f"{site.url}/reasons?by=agent")


async def test_the_log_is_verified_and_a_file_tested_from_the_page(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    async with site.http.get(f"{site.url}/tlog/checkpoint") as response:
        checkpoint = await response.read()
    file = tmp_path / "checkpoint.txt"
    async with page_of(browser, site, "/trust") as page:
        await page.get_by_role("button", name="Verify the log now").click()
        await expect(page.locator("#trust-verification")).to_contain_text("intact")
        for content, verdict in (
            (checkpoint, "Proved"),
            (checkpoint.replace(b"\n", b"\n1", 1), "Not proved"),
        ):
            file.write_bytes(content)
            await page.get_by_label("File", exact=True).set_input_files(file)
            await page.get_by_role("button", name="Test it").click()
            await expect(page.locator("h1")).to_have_text(verdict)
            await page.get_by_role("link", name="Back to Trust").click()


async def test_pictures(site: Site, browser: Browser, request: pytest.FixtureRequest) -> None:
    """With --screenshots DIR: every page, wide and narrow, light and dark; of another service with --site."""
    folder = request.config.getoption("--screenshots")
    site = replace(site, url=request.config.getoption("--site") or site.url)
    if folder is None:
        pytest.skip("pictures are made with --screenshots DIR")
    pictured = await paths(site)
    pictured["call"] += "?step=8"
    del pictured["transfer, then"]
    for name, path in pictured.items():
        for scheme in ("light", "dark"):
            for size, viewport in (("", TALL), ("-phone", NARROW)):
                async with page_of(browser, site, path, viewport=viewport, color_scheme=scheme) as page:
                    await expect(page.locator("#live-told")).to_contain_text("Live")
                    picture = Path(folder) / f"{name}{size}-{scheme}.png"
                    assert len(await page.screenshot(path=picture)) < MOST_BYTES
