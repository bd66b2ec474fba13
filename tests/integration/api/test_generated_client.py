"""A client that a generator makes of our OpenAPI document works, and the generator has nothing to warn of."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL
from transfer_site import open_site

from service.simulator import Simulator

GENERATOR = shutil.which("openapi-python-client")
SCRIPT = Path(__file__).with_name("with_generated_client.py")


async def run(*command: str | Path) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        told, complained = await process.communicate()
    assert process.returncode == 0, told + complained
    return told.decode(), complained.decode()


@pytest.mark.skipif(GENERATOR is None, reason="openapi-python-client is not installed: see .ci/run")
async def test_a_generated_client_works(database_url: URL, tmp_path: Path) -> None:
    assert GENERATOR is not None
    async with (
        Simulator(seed=1) as simulator,
        open_site(database_url, simulator, users=simulator.agents, folding=True) as site,
    ):
        call = await site.seen_call("15001", "15000")
        await site.command(call.id, to="15002", userData={"TransferReason": "Escalation"})
        await site.ended(call.id)
        assert await site.services.engine.reached(await site.log.next_position() - 1, timeout_s=20)
        document, client = tmp_path / "openapi.json", tmp_path / "client"
        document.write_text(json.dumps((await site.get("/openapi.json")).json), encoding="utf-8")
        said, warned = await run(GENERATOR, "generate", "--path", document, "--output-path", client)
        assert (said.split(), warned) == (["Generating", str(client)], "")
        python = Path(GENERATOR).with_name("python")
        used, _ = await run(python, SCRIPT, client, site.url, call.id)
        told: dict[str, Any] = json.loads(used)
        assert told["unknown"]["status"] == 404
        assert told["call"] == (await site.get(f"/v1/calls/{call.id}")).json
        assert told["call"]["call_id"] == call.id
        assert told["history"] == (await site.get(f"/v1/calls/{call.id}/history")).json
        [transfer] = told["transfers"]["transfers"]
        assert (transfer["reason"], transfer["destination"]) == ("Escalation", "15002")
        assert told["trail"]["steps"] == transfer["steps"]
        assert told["coverage"]["agent"] == "15000"
        [hold] = told["holds"]["holds"]
        assert hold["hold_id"] == told["placed"]["hold_id"]
