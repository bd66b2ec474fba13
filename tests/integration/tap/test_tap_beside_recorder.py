"""Recorder and tap side by side in one program: one source per agent, as the settings say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr
from tapping import DEADLINE_S, application, body_of, event_of, inject

from service.api import create_api
from service.api.serving import serving
from service.app import open_application, running
from service.config import Agent, Settings
from service.errors import BadConfig
from service.log import EventLog
from service.postgres import Database
from service.simulator import Simulator


def agent(user: str, source: str) -> Agent:
    return Agent.model_validate({"user": user, "password": SecretStr(f"secret-{user}"), "source": source})


async def test_each_agent_is_recorded_by_the_source_that_he_is_given(
    database: Database, log: EventLog, tmp_path: Path
) -> None:
    async with Simulator(seed=1, timeout_ms=200) as simulator:
        settings = Settings(
            database_url=database.url.render_as_string(hide_password=False),
            data_dir=tmp_path,
            gws_url=simulator.url,
            tap=simulator.url,
            tap_listen="127.0.0.1:0",
            drain_s=0.0,
            log_patience_s=20.0,
        )
        agents = [agent("15000", "session"), agent("15001", "tap")]
        async with open_application(settings, agents) as calltrail, running(calltrail):
            assert calltrail.tap is not None
            own = simulator.bayeux.sessions_of
            await simulator.until(
                lambda: any("/v2/me/*" in one.subscriptions for one in own("15000")), within_s=DEADLINE_S
            )
            bodies = {}
            for user in ("15000", "15001"):
                async with application(simulator, calltrail.tap.url, user) as app:
                    await app.open("/v2/me/calls")
                    [bodies[user]] = inject(simulator, range(1), user)
                    assert len(await app.connect(ack=0, hold_ms=0)) == 2
            assert len(simulator.bayeux.sessions_of("15001")) == 1
            await until_recorded(log, 2)
            await calltrail.recorder.stop()
            async with (
                serving(create_api(calltrail.services), "127.0.0.1", 0) as api,
                aiohttp.ClientSession() as http,
                http.get(f"{api}/v1/tap") as answer,
            ):
                assert (await answer.json())["upstream"] == simulator.url
        found = await log.read(kinds=["NotificationReceived"], limit=1000)
        told = [(event_of(one).agent, body_of(one)) for one in found]
        assert sorted(told) == [("15000", bodies["15000"]), ("15001", bodies["15001"])]
        status = calltrail.tap.status()
        assert (status["recording"], status["events_not_recorded"]) == (True, 0)


async def until_recorded(log: EventLog, count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = log.watch.next_position - 1
            if len(await log.read(kinds=["NotificationReceived"])) >= count:
                return
            await log.watch.beyond(seen)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"tap": "nonsense"}, "tap"),
        ({"tap_listen": "0.0.0.0:1"}, "tap_listen"),
        ({"tap_certificate": Path("/nowhere.pem")}, "tap_certificate"),
        ({"tap": "https://gws.example", "tap_ca_file": Path("/nowhere.pem")}, "tap_ca_file"),
    ],
)
async def test_a_wrong_setting_is_named(
    database: Database, tmp_path: Path, settings: dict[str, object], field: str
) -> None:
    url = database.url.render_as_string(hide_password=False)
    given = Settings.model_validate(
        {"database_url": url, "data_dir": tmp_path, "tap": "http://127.0.0.1:1", **settings}
    )
    with pytest.raises(BadConfig) as wrong:
        async with open_application(given, []):
            pass
    assert wrong.value.field == field


async def test_a_process_without_a_tap_says_so(database: Database, tmp_path: Path) -> None:
    url = database.url.render_as_string(hide_password=False)
    async with (
        open_application(Settings(database_url=url, data_dir=tmp_path), []) as calltrail,
        serving(create_api(calltrail.services), "127.0.0.1", 0) as api,
        aiohttp.ClientSession() as http,
        http.get(f"{api}/v1/tap") as answer,
    ):
        assert answer.status == 404
        assert "--tap URL" in (await answer.json(content_type=None))["detail"]
