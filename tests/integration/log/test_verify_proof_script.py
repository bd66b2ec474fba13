from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

from service.cli.traffic import Traffic
from service.log import EventLog
from service.log.checkpoints import Checkpoints, load_keys
from service.postgres import Database

SCRIPT = Path(__file__).parents[3] / "docs" / "verify_proof.py"


def run(path: Path, vkey: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(SCRIPT), str(path), vkey]
    return subprocess.run(command, check=False, capture_output=True, text=True)


async def test_the_script_of_the_documentation_proves_and_refuses(
    log: EventLog, database: Database, tmp_path: Path
) -> None:
    await log.append(list(Traffic(seed=5, sessions=3).events(300)))
    keys = load_keys(tmp_path)
    evidence = (await Checkpoints(database, keys).prove(270)).encode()
    vkey, path = keys.trusted[0].encode(), tmp_path / "event.json"
    path.write_bytes(evidence)
    assert run(path, vkey).returncode == 0
    fields = json.loads(evidence)
    for forged in (
        {"payload": b64encode(b"forged").decode()},
        {"entry": fields["entry"].replace("call-", "cal1-")},
        {"proof": fields["proof"].replace("index 270", "index 271")},
        {"proof": fields["proof"].replace("\n300\n", "\n301\n")},
    ):
        path.write_text(json.dumps(fields | forged))
        assert run(path, vkey).returncode != 0
