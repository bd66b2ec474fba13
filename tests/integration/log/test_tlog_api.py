from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx2
import pytest
from fastapi import FastAPI

from service.api import problems
from service.api.services import Services
from service.api.tlog import tlog_router
from service.cli.traffic import Traffic
from service.log import EventLog
from service.log.checkpoints import load_keys
from service.tlog.checkpoint import verify_checkpoint
from service.tlog.edge import RightEdge
from service.tlog.merkle import leaf_hashes, tree_root
from service.tlog.note import Note
from service.tlog.tiles import decode_bundle, partial_tiles


@pytest.fixture
def client(log: EventLog, tmp_path: Path) -> httpx2.AsyncClient:
    app = FastAPI()
    problems.install(app)
    app.include_router(
        tlog_router(cast("Services", SimpleNamespace(log=log, settings=SimpleNamespace(data_dir=tmp_path))))
    )
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://log/tlog/")


async def test_a_monitor_can_rebuild_the_tree_from_what_is_served(
    client: httpx2.AsyncClient, log: EventLog, tmp_path: Path
) -> None:
    await log.append(list(Traffic(seed=5, sessions=3).events(600)))
    keys = load_keys(tmp_path)
    note = Note.decode((await client.get("checkpoint")).content)
    checkpoint = verify_checkpoint(note, keys.origin, keys.verifiers)
    assert checkpoint.size == 600
    entries: list[bytes] = []
    for path in ("000", "001", "002.p/88"):
        answer = await client.get(f"tile/entries/{path}")
        assert "immutable" in answer.headers["cache-control"]
        entries += decode_bundle(answer.content)
    leaves = leaf_hashes(entries)
    assert tree_root(leaves) == checkpoint.root
    assert (await client.get("tile/0/001")).content == leaves[8192:16384]
    for tile in partial_tiles(600):
        assert (await client.get(tile.path)).content == RightEdge().append(leaves).edge.tiles[tile.level]
    for path in ("tile/0/003", "tile/0/002", "tile/9/000", "tile/x/000", "tile/entries/002.p/89"):
        assert (await client.get(path)).status_code == 404
