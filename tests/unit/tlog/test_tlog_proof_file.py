from base64 import b64encode
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import (
    CHECKPOINT_8,
    COSIGNATURE_LINE,
    INCLUSION,
    LEAVES,
    LOG_SIGNER,
    LOG_VERIFIER,
    ORIGIN,
    ROOTS,
    WITNESS_TIME,
    WITNESS_VERIFIER,
)

from service.errors import Malformed, ProofRefused, SignatureRefused, TlogError
from service.tlog.checkpoint import Checkpoint
from service.tlog.note import Note, NoteSignature
from service.tlog.proof_file import TlogProof

NOTE = Note.decode(CHECKPOINT_8 + f"{COSIGNATURE_LINE}\n".encode())
PROOF = TlogProof(5, tuple(INCLUSION[5, 8]), NOTE)
FILE = PROOF.encode()
SIBLING = b64encode(LEAVES[4]).decode()


def test_the_proof_of_input_5() -> None:
    assert sha256(FILE).hexdigest() == "e9a9eeeec79a42024344f369ca4b8526a1b9e6ccfc5b4a1559ab56994a3f5e0d"
    assert TlogProof.decode(FILE) == PROOF
    proven = TlogProof.decode(FILE).verify(LEAVES[5], ORIGIN, [LOG_VERIFIER], [WITNESS_VERIFIER])
    assert proven.checkpoint == Checkpoint(ORIGIN, 8, ROOTS[8])
    assert proven.cosignatures == (("witness.example/w1", WITNESS_TIME),)


def test_witnesses_that_nobody_asked_for_are_not_named() -> None:
    assert PROOF.verify(LEAVES[5], ORIGIN, [LOG_VERIFIER]).cosignatures == ()


@given(st.binary(max_size=40))
def test_extra_data_is_carried_and_proves_nothing(extra: bytes) -> None:
    proof = replace(PROOF, extra=extra)
    assert TlogProof.decode(proof.encode()) == proof
    assert proof.verify(LEAVES[5], ORIGIN, [LOG_VERIFIER]) == PROOF.verify(LEAVES[5], ORIGIN, [LOG_VERIFIER])


def test_a_log_of_one_entry_needs_no_siblings() -> None:
    note = Checkpoint(ORIGIN, 1, ROOTS[1]).sign([LOG_SIGNER])
    proof = TlogProof.decode(TlogProof(0, (), note).encode())
    assert proof.verify(LEAVES[0], ORIGIN, [LOG_VERIFIER]).checkpoint.size == 1


@given(st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(FILE) - 1))
    changed = bytearray(FILE)
    changed[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != FILE[at]))
    try:
        proven = TlogProof.decode(bytes(changed)).verify(
            LEAVES[5], ORIGIN, [LOG_VERIFIER], [WITNESS_VERIFIER]
        )
    except TlogError:
        return
    # A changed name or key id makes the witness a stranger, whose word is ignored; the log's own must stand.
    assert at > len(FILE) - len(f"{COSIGNATURE_LINE}\n".encode())
    assert proven.cosignatures == ()


@given(st.binary(max_size=80))
def test_reading_any_bytes_succeeds_or_says_malformed(data: bytes) -> None:
    start = b"c2sp.org/tlog-proof@v1\n"
    for file in (data, start + data, start + b"index 5\n" + data, start + data + b"\n\n" + CHECKPOINT_8):
        try:
            read = TlogProof.decode(file)
        except Malformed:
            continue
        assert read.encode() == file


@pytest.mark.parametrize(
    "head",
    [
        "",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v2\nindex 5",
        "c2sp.org/tlog-proof@v1\nindex",
        "c2sp.org/tlog-proof@v1\nindex 05",
        "c2sp.org/tlog-proof@v1\nindex -5",
        "c2sp.org/tlog-proof@v1\nindex 5 ",
        "c2sp.org/tlog-proof@v1\nIndex 5",
        "c2sp.org/tlog-proof@v1\nindex 9223372036854775808",
        "c2sp.org/tlog-proof@v1\nindex 5\nindex 5",
        "c2sp.org/tlog-proof@v1\nindex 5\nextra AAAA",
        "c2sp.org/tlog-proof@v1\nextra AAAA",
        "c2sp.org/tlog-proof@v1\nextra \nindex 5",
        "c2sp.org/tlog-proof@v1\nextra AAA\nindex 5",
        "c2sp.org/tlog-proof@v1\nextra AAAA\nextra AAAA\nindex 5",
        "c2sp.org/tlog-proof@v1\r\nindex 5",
        "c2sp.org/tlog-proof@v1\nindex 5\nAAAA",
        f"c2sp.org/tlog-proof@v1\nindex 5\n{SIBLING[:-2]}h=",
        f"c2sp.org/tlog-proof@v1\nindex 5\n{SIBLING} ",
        f"\nc2sp.org/tlog-proof@v1\nindex 5\n{SIBLING}",
        "c2sp.org/tlog-proof@v1\nindex 5" + f"\n{SIBLING}" * 64,
        "c2sp.org/tlog-proof@v1\nindex \u0665",
    ],
)
def test_a_proof_in_any_other_form_is_refused(head: str) -> None:
    with pytest.raises(Malformed, match="tlog-proof|note"):
        TlogProof.decode(f"{head}\n\n".encode() + CHECKPOINT_8)


def test_a_proof_without_a_checkpoint_is_refused() -> None:
    head, _, _ = FILE.partition(b"\n\n")
    for file in (head, head + b"\n", head + b"\n\n"):
        with pytest.raises(Malformed):
            TlogProof.decode(file)


def test_a_proof_beyond_two_million_bytes_is_not_read() -> None:
    with pytest.raises(Malformed, match="2000001 bytes"):
        TlogProof.decode(bytes(2_000_001))


def test_a_proof_for_another_leaf_or_place_is_refused() -> None:
    with pytest.raises(ProofRefused):
        PROOF.verify(LEAVES[4], ORIGIN, [LOG_VERIFIER])
    with pytest.raises(ProofRefused):
        replace(PROOF, index=4).verify(LEAVES[5], ORIGIN, [LOG_VERIFIER])
    with pytest.raises(ProofRefused):
        replace(PROOF, siblings=PROOF.siblings[:-1]).verify(LEAVES[5], ORIGIN, [LOG_VERIFIER])


def test_a_proof_whose_signatures_do_not_hold_is_refused() -> None:
    with pytest.raises(SignatureRefused):
        PROOF.verify(LEAVES[5], ORIGIN, [])
    with pytest.raises(SignatureRefused):
        PROOF.verify(LEAVES[5], "other.example/log", [LOG_VERIFIER])
    forged_witness = NoteSignature.decode(COSIGNATURE_LINE)._replace(signature=bytes(72))
    spoiled = replace(PROOF, note=Note.decode(CHECKPOINT_8).with_signatures([forged_witness]))
    with pytest.raises(SignatureRefused, match="witness"):
        spoiled.verify(LEAVES[5], ORIGIN, [LOG_VERIFIER], [WITNESS_VERIFIER])


@pytest.mark.parametrize(
    ("index", "siblings"), [(-1, ()), (2**63, ()), (0, (bytes(31),)), (0, (bytes(32),) * 64)]
)
def test_a_proof_that_cannot_be_is_not_made(index: int, siblings: tuple[bytes, ...]) -> None:
    with pytest.raises(Malformed, match="tlog-proof"):
        TlogProof(index, siblings, NOTE)
