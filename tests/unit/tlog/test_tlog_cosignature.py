from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import (
    CHECKPOINT_8,
    CONSISTENCY,
    COSIGNATURE_LINE,
    LOG_KEY,
    LOG_VERIFIER,
    ORIGIN,
    ROOTS,
    WITNESS,
    WITNESS_TIME,
    WITNESS_VERIFIER,
)

from service.errors import Malformed, SignatureRefused
from service.tlog.checkpoint import Checkpoint, verify_checkpoint
from service.tlog.cosignature import (
    CosignatureVerifier,
    Cosigner,
    encode_add_checkpoint,
    verify_cosignatures,
)
from service.tlog.note import Note, NoteSignature

EIGHT = Checkpoint(ORIGIN, 8, ROOTS[8])
NOTE = Note.decode(CHECKPOINT_8)


def test_the_cosignature_of_the_published_checkpoint() -> None:
    line = WITNESS.sign(EIGHT, WITNESS_TIME)
    assert line.encode() == f"{COSIGNATURE_LINE}\n"
    assert NoteSignature.decode(COSIGNATURE_LINE) == line
    assert verify_cosignatures(NOTE.with_signatures([line]), [WITNESS_VERIFIER]) == (
        ("witness.example/w1", WITNESS_TIME),
    )


def test_a_cosigned_checkpoint_is_still_the_logs() -> None:
    cosigned = Note.decode(NOTE.with_signatures([WITNESS.sign(EIGHT, WITNESS_TIME)]).encode())
    assert verify_checkpoint(cosigned, ORIGIN, [LOG_VERIFIER]) == EIGHT
    assert verify_cosignatures(cosigned, []) == ()
    assert verify_cosignatures(NOTE, [WITNESS_VERIFIER]) == ()


def test_a_witness_counts_once_however_often_it_signed() -> None:
    cosigned = NOTE.with_signatures([WITNESS.sign(EIGHT, 1), WITNESS.sign(EIGHT, 2)])
    assert verify_cosignatures(cosigned, [WITNESS_VERIFIER]) == (("witness.example/w1", 1),)


@given(st.integers(0, 575))
def test_any_changed_bit_of_a_cosignature_is_refused(bit: int) -> None:
    line = WITNESS.sign(EIGHT, WITNESS_TIME)
    changed = bytearray(line.signature)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureRefused):
        verify_cosignatures(
            NOTE.with_signatures([line._replace(signature=bytes(changed))]), [WITNESS_VERIFIER]
        )


@pytest.mark.parametrize("other", [Checkpoint(ORIGIN, 7, ROOTS[7]), Checkpoint("other.example", 8, ROOTS[8])])
def test_a_cosignature_of_another_checkpoint_is_refused(other: Checkpoint) -> None:
    with pytest.raises(SignatureRefused):
        verify_cosignatures(NOTE.with_signatures([WITNESS.sign(other, WITNESS_TIME)]), [WITNESS_VERIFIER])


def test_a_plain_signature_of_the_witness_is_no_cosignature() -> None:
    plain = WITNESS.key.sign(EIGHT.text.encode())
    for signature in (plain, bytes(8) + plain, b""):
        line = NoteSignature(WITNESS.key.name, WITNESS_VERIFIER.key.key_id, signature)
        with pytest.raises(SignatureRefused):
            verify_cosignatures(NOTE.with_signatures([line]), [WITNESS_VERIFIER])


def test_extension_lines_are_cosigned() -> None:
    extended = Checkpoint(ORIGIN, 8, ROOTS[8], ("extension",))
    line = WITNESS.sign(extended, WITNESS_TIME)
    assert verify_cosignatures(Note(extended.text, (line,)), [WITNESS_VERIFIER])
    with pytest.raises(SignatureRefused):
        verify_cosignatures(Note(EIGHT.text, (line,)), [WITNESS_VERIFIER])


def test_times_fit_63_bits() -> None:
    latest = NOTE.with_signatures([WITNESS.sign(EIGHT, 2**63 - 1)])
    assert verify_cosignatures(latest, [WITNESS_VERIFIER]) == (("witness.example/w1", 2**63 - 1),)
    for time in (-1, 2**63):
        with pytest.raises(Malformed, match="time"):
            WITNESS.sign(EIGHT, time)


def test_a_later_time_than_63_bits_is_refused_though_signed() -> None:
    signature = WITNESS.key.sign(f"cosignature/v1\ntime {2**63}\n{EIGHT.text}".encode())
    line = NoteSignature(
        WITNESS.key.name, WITNESS_VERIFIER.key.key_id, (2**63).to_bytes(8, "big") + signature
    )
    with pytest.raises(SignatureRefused):
        verify_cosignatures(NOTE.with_signatures([line]), [WITNESS_VERIFIER])


def test_a_logs_key_does_not_cosign() -> None:
    with pytest.raises(Malformed, match="type 0x01"):
        Cosigner(LOG_KEY)
    with pytest.raises(Malformed, match="type 0x01"):
        CosignatureVerifier(LOG_KEY.verifier_key)


def test_the_request_to_a_witness() -> None:
    body = encode_add_checkpoint(6, CONSISTENCY[6, 8], NOTE)
    assert sha256(body).hexdigest() == "e06c8e0a567a8de0ef899c035414aa9abfbe7846757fb43faf1b0a91a51f2fe6"
    assert encode_add_checkpoint(0, [], NOTE) == b"old 0\n\n" + CHECKPOINT_8


@pytest.mark.parametrize(("old", "proof"), [(6, [bytes(31)]), (6, [bytes(32)] * 64), (-1, [])])
def test_a_request_that_no_witness_takes_is_not_written(old: int, proof: list[bytes]) -> None:
    with pytest.raises(Malformed, match="add-checkpoint"):
        encode_add_checkpoint(old, proof, NOTE)
