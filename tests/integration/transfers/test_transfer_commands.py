"""`calltrail transfers` and `calltrail transfer …`, as programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from program import calltrail
from sqlalchemy.engine import URL, make_url
from transfer_site import Site, open_site

from service.simulator import Simulator
from service.transfers import State


@pytest.fixture
async def unsettled(database_url: URL, simulator: Simulator) -> AsyncIterator[Site]:
    async with open_site(database_url, simulator, settling=False) as opened:
        yield opened


async def test_a_person_finds_what_is_in_doubt_and_settles_it(unsettled: Site) -> None:
    database = unsettled.database.url
    transfer_id = (await unsettled.hung_up_in_doubt()).id
    listed, table = await asyncio.gather(
        calltrail(database, "transfers", "--in-doubt", "--json"),
        calltrail(database, "transfers", "--in-doubt"),
    )
    assert (listed.status, table.status) == (0, 0)
    assert [one["transfer_id"] for one in listed.json["transfers"]] == [str(transfer_id)]
    assert str(transfer_id) in table.out

    told = ("--outcome", "failed", "--by", "WillardC", "--why", "the caller hung up")
    settled = await calltrail(database, "transfer", "settle", str(transfer_id), *told, "--json")
    assert settled.status == 0
    assert settled.json == {"transfer_id": str(transfer_id), "state": "failed"}

    again, none, trail, shown = await asyncio.gather(
        calltrail(database, "transfer", "settle", str(transfer_id), *told),
        calltrail(database, "transfers", "--in-doubt"),
        calltrail(database, "transfer", "show", str(transfer_id), "--json"),
        calltrail(database, "transfer", "show", str(transfer_id)),
    )
    assert again.status == 1
    assert "failed" in again.error
    assert (none.status, none.out.strip()) == (0, "No transfer fits.")
    doubt, last = trail.json["steps"][-2:]
    assert (doubt["step"], last["step"]) == (State.IN_DOUBT, State.FAILED)
    assert "no answer from GWS" in doubt["why"]  # the cause stays, whatever was decided
    assert (last["by"], last["why"]) == ("WillardC", "a person's decision: the caller hung up")
    assert "no answer from GWS" in shown.out
    assert "WillardC" in shown.out


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("not-an-id", "--outcome", "failed", "--why", "x"), 2, "is no id"),
        ((str(uuid4()), "--outcome", "perhaps", "--why", "x"), 2, "confirmed, failed, abandoned"),
        ((str(uuid4()), "--outcome", "failed", "--why", " "), 2, "--why"),
        ((str(uuid4()), "--outcome", "failed"), 2, "--why"),
        ((str(uuid4()), "--outcome", "failed", "--why", "x"), 1, "there is no transfer"),
    ],
)
async def test_settle_says_what_is_wrong(
    site_without_gws: Site, arguments: tuple[str, ...], status: int, told: str
) -> None:
    ended = await calltrail(site_without_gws.database.url, "transfer", "settle", *arguments)
    assert ended.status == status
    assert told in ended.error


async def test_settle_says_that_the_database_is_away() -> None:
    told = ("--outcome", "failed", "--why", "x")
    ended = await calltrail(
        make_url("postgresql://nobody@127.0.0.1:9/none"), "transfer", "settle", str(uuid4()), *told
    )
    assert ended.status == 3
