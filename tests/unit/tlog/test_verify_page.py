"""docs/verify.md is true, and docs/verify_proof.py tells good evidence from forged."""

import json
import re
import runpy
import subprocess
import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from evidence_examples import FORGED, GOOD, REDACTED, WITHOUT_PAYLOAD
from tlog_vectors import (
    COMMITMENT,
    INCLUSION,
    INPUTS,
    LEAVES,
    LOG_VKEY,
    N03,
    PAYLOAD,
    ROOTS,
    SALT,
    WITNESS_VKEY,
)

from service.tlog.evidence import FORMAT, Evidence
from service.tlog.keys import VerifierKey
from service.tlog.note import Ed25519Verifier

DOCS = Path(__file__).parents[3] / "docs"
SCRIPT = DOCS / "verify_proof.py"
PAGE = (DOCS / "verify.md").read_text(encoding="utf-8")
DEADLINE = 60

CASES = json.loads((Path(__file__).parent / "merkle_cases.json").read_text())
HASHES = [b64decode(text) for text in CASES["hashes"]]
WELL_FORMED_CASES = [
    # The script meets no others: it refuses hashes of another length where it reads their base64.
    case
    for case in CASES["inclusion"]
    if all(len(HASHES[number]) == 32 for number in (case[3], case[4], *(case[5] or [])))
]

script = SimpleNamespace(**runpy.run_path(str(SCRIPT)))

ALL_PROVED, REFUSED, WRONG_USAGE, PAYLOAD_REDACTED = 0, 1, 2, 3


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script apart from the project: -I keeps the working directory off its path."""
    return subprocess.run(
        [sys.executable, "-I", SCRIPT, *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE,
        check=False,
    )


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    file = tmp_path / "evidence.json"
    file.write_bytes(GOOD.encode())
    return file


def test_the_script_imports_nothing_of_the_project() -> None:
    imported = re.findall(r"^ *(?:from|import) (\w+)", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(imported) - set(sys.stdlib_module_names) == {"cryptography"}


def test_good_evidence(file: Path) -> None:
    done = run(file, LOG_VKEY, WITNESS_VKEY)
    assert done.returncode == ALL_PROVED, done.stdout + done.stderr
    assert (
        "proved: the entry at position 217 of the log calltrail.example/log, signed at size 300"
        in done.stdout
    )
    assert "cosigned by witness.example/w1" in done.stdout
    assert "proved: its payload" in done.stdout
    assert repr(PAYLOAD.decode()) in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("evidence", [REDACTED, WITHOUT_PAYLOAD])
def test_redacted_evidence(evidence: Evidence, file: Path) -> None:
    file.write_bytes(evidence.encode())
    done = run(file, LOG_VKEY)
    assert done.returncode == PAYLOAD_REDACTED, done.stdout + done.stderr
    assert "proved: the entry at position 217" in done.stdout
    assert "NOT PROVED: its payload, which was redacted" in done.stdout


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_forged_evidence(forged: bytes, file: Path) -> None:
    file.write_bytes(forged)
    done = run(file, LOG_VKEY, WITNESS_VKEY)
    assert done.returncode == REFUSED
    assert done.stdout.startswith("REFUSED: ")
    assert "proved:" not in done.stdout
    assert done.stderr == ""


def test_a_witness_that_did_not_sign(file: Path) -> None:
    witness = VerifierKey.decode(WITNESS_VKEY)
    other = VerifierKey(witness.name, witness.type, bytes(32))
    done = run(file, LOG_VKEY, other.encode())
    assert done.returncode == REFUSED
    assert "has not signed" in done.stdout


@pytest.mark.parametrize(
    ("log_vkey", "reason"),
    [
        (WITNESS_VKEY, "a key of another log"),
        (LOG_VKEY.replace("385e1b1f", "385e1b1e"), "a wrong key id"),
        (LOG_VKEY[:-1], "not well-formed"),
        ("calltrail.example/log", "not well-formed"),
    ],
)
def test_a_key_that_is_not_the_logs(log_vkey: str, reason: str, file: Path) -> None:
    done = run(file, log_vkey)
    assert done.returncode == REFUSED
    assert reason in done.stdout


def test_a_witness_key_of_another_type(file: Path) -> None:
    done = run(file, LOG_VKEY, LOG_VKEY)
    assert done.returncode == REFUSED
    assert "a key of another type" in done.stdout


@pytest.mark.parametrize("case", WELL_FORMED_CASES, ids=lambda case: case[0])
def test_the_scripts_climb_on_the_published_inclusion_cases(case: list) -> None:
    _name, index, size, leaf, root, proof, refused = case
    try:
        found = script.root_from(HASHES[leaf], index, size, [HASHES[number] for number in proof or []])
    except script.Refused:
        assert refused
    else:
        assert (found != HASHES[root]) == refused


@pytest.mark.parametrize(
    ("siblings", "reason"), [([*INCLUSION[5, 8], N03], "too long"), ([N03], "too short")]
)
def test_the_script_names_a_proof_of_another_length(siblings: list[bytes], reason: str) -> None:
    with pytest.raises(script.Refused, match=reason):
        script.root_from(LEAVES[5], 5, 8, siblings)


def test_wrong_usage(tmp_path: Path) -> None:
    assert run().returncode == WRONG_USAGE
    assert run(tmp_path / "missing.json", LOG_VKEY).returncode == WRONG_USAGE


def example() -> tuple[bytes, str]:
    """The evidence that the page shows, and the log's key."""
    [shown] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    [vkey] = re.findall(r"`(calltrail\.example/evidence\+[^`]*)`", PAGE)
    return shown.encode(), vkey


def test_the_pages_example_is_accepted(tmp_path: Path) -> None:
    shown, vkey = example()
    file = tmp_path / "evidence.json"
    file.write_bytes(shown)
    assert run(file, vkey, WITNESS_VKEY).returncode == ALL_PROVED
    assert WITNESS_VKEY in PAGE
    evidence = Evidence.decode(shown)
    assert evidence.encode() == shown
    assert evidence.verify(
        "calltrail.example/evidence", [Ed25519Verifier(VerifierKey.decode(vkey))]
    ).payload_proved


def test_the_pages_example_is_computed_rightly() -> None:
    evidence = json.loads(example()[0])
    commitment = sha256(SALT + PAYLOAD).digest()
    assert commitment == COMMITMENT
    leaf = sha256(b"\x00" + evidence["entry"].encode()).digest()
    sibling = b64decode(evidence["proof"].split("\n")[2])
    root = sha256(b"\x01" + sibling + leaf).digest()
    values = re.findall(r"^\| .* \| `([0-9a-f]{64})` \|$", PAGE[: PAGE.index("A longer climb")], re.MULTILINE)
    assert values == [commitment.hex(), leaf.hex(), root.hex()]
    assert root == b64decode(evidence["proof"].split("\n")[6])


def test_the_pages_longer_climb_is_computed_rightly() -> None:
    climb = PAGE[PAGE.index("A longer climb") :]
    assert re.findall(r"`((?:[0-9a-f]{2})+)`", climb[: climb.index("| step")]) == [
        text for text in (entry.hex() for entry in INPUTS) if text
    ]
    rows = re.findall(r"^\| sibling on the (left|right) \| `(\w{64})` \| `(\w{64})` \|$", climb, re.MULTILINE)
    assert [bytes.fromhex(sibling) for _, sibling, _ in rows] == INCLUSION[5, 8]
    hash_ = LEAVES[5]
    assert f"| leaf hash: SHA-256(`00` ‖ `40414243`) | | `{hash_.hex()}` |" in climb
    for side, sibling, shown in rows:
        pair = bytes.fromhex(sibling) + hash_ if side == "left" else hash_ + bytes.fromhex(sibling)
        hash_ = sha256(b"\x01" + pair).digest()
        assert hash_.hex() == shown
    assert hash_ == ROOTS[8]


def test_the_page_names_the_format_and_every_key() -> None:
    assert f"`{FORMAT}`" in PAGE
    evidence = json.loads(example()[0])
    for key in (*evidence, *json.loads(evidence["entry"])):
        assert f"| `{key}` |" in PAGE
