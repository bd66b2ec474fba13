from __future__ import annotations

import asyncio
import subprocess
import sys
from base64 import b64decode
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx2
import pytest
from fastapi import FastAPI

from service.api import problems
from service.api.services import Services
from service.api.tlog import proofs_router, tlog_router
from service.cli.traffic import Traffic
from service.errors import ProofRefused
from service.log import EventLog
from service.log.checkpoints import Checkpoints, load_keys
from service.tlog.checkpoint import verify_checkpoint
from service.tlog.edge import RightEdge
from service.tlog.merkle import leaf_hashes, tree_root
from service.tlog.note import Note
from service.tlog.proofs import verify_consistency
from service.tlog.tiles import decode_bundle, partial_tiles

SCRIPT = Path(__file__).parents[3] / "docs" / "verify_proof.py"
CONSISTENCY = "http://log/v1/proofs/consistency"


@pytest.fixture
def client(log: EventLog, tmp_path: Path) -> httpx2.AsyncClient:
    app = FastAPI()
    problems.install(app)
    services = cast("Services", SimpleNamespace(log=log, settings=SimpleNamespace(data_dir=tmp_path)))
    app.include_router(tlog_router(services))
    app.include_router(proofs_router(services))
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


async def test_a_stranger_can_ask_for_evidence_and_check_it_alone(
    client: httpx2.AsyncClient, log: EventLog, tmp_path: Path
) -> None:
    await log.append(list(Traffic(seed=5, sessions=3).events(300)))
    file, vkey = tmp_path / "event.json", load_keys(tmp_path).trusted[0].encode()
    for position in (0, 255, 299):
        file.write_bytes((await client.get(f"http://log/v1/proofs/{position}")).content)
        command = [sys.executable, "-I", str(SCRIPT), str(file), vkey]
        assert (await asyncio.to_thread(subprocess.run, command, check=False)).returncode == 0
        assert b'"position":%d,' % position in file.read_bytes().replace(b"\\", b"")
    for outside in ("300", "-1"):
        answer = await client.get(f"http://log/v1/proofs/{outside}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_stranger_can_ask_whether_the_log_was_only_extended(
    client: httpx2.AsyncClient, log: EventLog, tmp_path: Path
) -> None:
    traffic, keys, states = Traffic(seed=5, sessions=3), load_keys(tmp_path), []
    for _ in range(3):
        await log.append(list(traffic.events(270)))
        note = await Checkpoints(log.database, keys).sign()
        states.append(verify_checkpoint(note, keys.origin, keys.verifiers))
    for old, new in combinations(states, 2):
        answer = await client.get(CONSISTENCY, params={"old": old.size, "new": new.size})
        hashes = [b64decode(one) for one in answer.json()["hashes"]]
        verify_consistency(old.size, old.root, new.size, new.root, hashes)
        with pytest.raises(ProofRefused):
            verify_consistency(old.size, new.root, new.size, new.root, hashes)
    for old_size, new_size in ((5, 4), (5, 811)):
        answer = await client.get(CONSISTENCY, params={"old": old_size, "new": new_size})
        assert answer.status_code == 404
