import json

import pytest
from evidence_examples import FORGED, GOOD, INDEX, REDACTED, SIZE, WITHOUT_PAYLOAD, edited
from hypothesis import given
from hypothesis import strategies as st
from tlog_vectors import (
    COMMITMENT,
    LOG_KEY,
    LOG_VERIFIER,
    ORIGIN,
    PAYLOAD,
    SALT,
    WITNESS_TIME,
    WITNESS_VERIFIER,
)

from service.errors import Malformed, ProofRefused, TlogError
from service.tlog.evidence import LARGEST_EVIDENCE, Evidence, Verdict

FILE = GOOD.encode()


def check(file: bytes) -> Verdict:
    return Evidence.decode(file).verify(ORIGIN, [LOG_VERIFIER], [WITNESS_VERIFIER])


def test_good_evidence_proves_everything() -> None:
    verdict = check(FILE)
    assert verdict.payload_proved
    assert verdict.entry.position == INDEX
    assert verdict.entry.commitment == COMMITMENT
    assert verdict.checkpoint.size == SIZE
    assert verdict.cosignatures == (("witness.example/w1", WITNESS_TIME),)


def test_evidence_reads_back() -> None:
    for evidence in (GOOD, REDACTED, WITHOUT_PAYLOAD):
        assert Evidence.decode(evidence.encode()) == evidence
    assert set(json.loads(FILE)) == {"format", "proof", "entry", "salt", "payload"}
    assert set(json.loads(WITHOUT_PAYLOAD.encode())) == {"format", "proof", "entry"}


@pytest.mark.parametrize("evidence", [REDACTED, WITHOUT_PAYLOAD])
def test_a_redacted_event_proves_its_entry_and_no_payload(evidence: Evidence) -> None:
    verdict = check(evidence.encode())
    assert not verdict.payload_proved
    assert verdict._replace(payload_proved=True) == check(FILE)


@pytest.mark.parametrize("file", FORGED.values(), ids=FORGED.keys())
def test_forged_evidence_is_refused(file: bytes) -> None:
    with pytest.raises(TlogError):
        check(file)


def test_a_wrong_payload_is_named_as_the_reason() -> None:
    with pytest.raises(ProofRefused, match="payload"):
        check(FORGED["another payload"])


@given(st.data())
def test_any_changed_byte_of_what_is_proved_is_refused(data: st.DataObject) -> None:
    """The proof's own bytes are changed one by one in the tests of the proof file."""
    name = data.draw(st.sampled_from(["entry", "payload", "salt"]))
    original = {"entry": GOOD.entry, "payload": PAYLOAD, "salt": SALT}[name]
    at = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[at] = data.draw(st.integers(0, 127).filter(lambda byte: byte != original[at]))
    with pytest.raises(TlogError):
        check(Evidence(**{**fields(GOOD), name: bytes(changed)}).encode())


def fields(evidence: Evidence) -> dict:
    return {name: getattr(evidence, name) for name in ("proof", "entry", "payload", "salt")}


@given(st.binary(max_size=60), st.integers(0, len(FILE)), st.integers(0, len(FILE)))
def test_reading_any_bytes_succeeds_or_says_malformed(noise: bytes, start: int, end: int) -> None:
    for file in (noise, FILE[:start] + noise + FILE[end:]):
        try:
            evidence = Evidence.decode(file)
        except Malformed:
            continue
        assert Evidence.decode(evidence.encode()) == evidence


@pytest.mark.parametrize("key", ["format", "proof", "entry", "salt", "payload"])
@pytest.mark.parametrize("value", [1, None, [], {}, True, "\ud800"])
def test_a_field_of_another_type_is_refused(key: str, value: object) -> None:
    with pytest.raises(Malformed, match=key):
        check(json.dumps(json.loads(FILE) | {key: value}).encode())


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(Malformed, match="must be an object"):
        check(edited(more=""))


def test_evidence_beyond_16_megabytes_is_not_read() -> None:
    with pytest.raises(Malformed, match="at most"):
        Evidence.decode(bytes(LARGEST_EVIDENCE + 1))


def test_a_salt_of_another_length_is_refused() -> None:
    for salt in (b"", SALT[:15], SALT + b"\x00"):
        with pytest.raises(Malformed, match="salt"):
            Evidence(GOOD.proof, GOOD.entry, PAYLOAD, salt)


def test_evidence_trusts_only_the_keys_given() -> None:
    with pytest.raises(TlogError):
        GOOD.verify(ORIGIN, [])
    with pytest.raises(TlogError):
        GOOD.verify("other.example", [LOG_VERIFIER])
    assert GOOD.verify(ORIGIN, [LOG_VERIFIER]).cosignatures == ()
    assert LOG_KEY.name == ORIGIN
