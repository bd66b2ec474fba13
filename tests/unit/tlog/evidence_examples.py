"""One good piece of evidence, and the forged and broken ones that every verifier must refuse."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import replace

from tlog_vectors import (
    COMMITMENT,
    LOG_SIGNER,
    ORIGIN,
    PAYLOAD,
    SALT,
    WITNESS,
    WITNESS_TIME,
    TileStore,
)

from service.tlog.checkpoint import Checkpoint
from service.tlog.entry import commit, encode_entry
from service.tlog.evidence import Evidence
from service.tlog.keys import SignatureType, SignerKey
from service.tlog.merkle import leaf_hashes
from service.tlog.note import Ed25519Signer, Note
from service.tlog.plans import inclusion_plan
from service.tlog.proof_file import TlogProof

SIZE = 300
INDEX = 217


def entry_at(position: int, commitment: bytes) -> bytes:
    return encode_entry(
        position=position,
        event_id=f"0192f0c1-7b1e-7c1a-9d3b-{position:012x}",
        stream="call-0073028DOE30",
        kind="NotificationReceived",
        recorded_at="2026-11-24T20:13:00.123456Z",
        commitment=commitment,
    )


ENTRIES = [
    entry_at(position, COMMITMENT if position == INDEX else commit(SALT, str(position).encode()))
    for position in range(SIZE)
]


def evidence_of(entries: list[bytes], index: int, signer: Ed25519Signer = LOG_SIGNER) -> Evidence:
    """The evidence that a log of these entries would hand out for one of them, cosigned by the witness."""
    tiles = TileStore(leaf_hashes(entries))
    checkpoint = Checkpoint(ORIGIN, len(entries), tiles.edge.root())
    note = checkpoint.sign([signer]).with_signatures([WITNESS.sign(checkpoint, WITNESS_TIME)])
    proof = TlogProof(index, tuple(inclusion_plan(index, len(entries)).hashes(tiles)), note)
    return Evidence(proof, entries[index], PAYLOAD, SALT)


GOOD = evidence_of(ENTRIES, INDEX)
REDACTED = replace(GOOD, salt=None, payload=b'{"a":null}')
WITHOUT_PAYLOAD = replace(GOOD, salt=None, payload=None)
IMPOSTOR = Ed25519Signer(SignerKey(ORIGIN, SignatureType.ED25519, bytes(32)))


def edited(**changes: str | None) -> bytes:
    """The good file with fields replaced, or left out where None."""
    fields = json.loads(GOOD.encode()) | changes
    return json.dumps({key: value for key, value in fields.items() if value is not None}).encode()


def proof_text(old: str, new: str) -> bytes:
    text = GOOD.proof.encode().decode()
    assert old in text
    return edited(proof=text.replace(old, new, 1))


def with_signature_of(other: Note) -> bytes:
    """The good file, its checkpoint under the signatures of another one."""
    return replace(
        GOOD, proof=replace(GOOD.proof, note=Note(GOOD.proof.note.text, other.signatures))
    ).encode()


_text = GOOD.proof.encode().decode()
_first_sibling = _text.split("\n")[2]
_flipped_sibling = b64encode(
    bytes([b64decode(_first_sibling)[0] ^ 1]) + b64decode(_first_sibling)[1:]
).decode()
_other_log = evidence_of(ENTRIES[:-1], INDEX)
_neighbour = evidence_of(ENTRIES, INDEX - 1)
_rewritten = [*ENTRIES[:INDEX], entry_at(INDEX, commit(SALT, b'{"a":2}')), *ENTRIES[INDEX + 1 :]]
_misplaced = [*ENTRIES[:INDEX], entry_at(INDEX + 1, COMMITMENT), *ENTRIES[INDEX + 1 :]]

FORGED = {
    "another payload": edited(payload=b64encode(b'{"a":2}').decode()),
    "another salt": edited(salt=b64encode(bytes(16)).decode()),
    "a byte moved from the payload to the salt": edited(
        salt=b64encode(SALT + PAYLOAD[:1]).decode(), payload=b64encode(PAYLOAD[1:]).decode()
    ),
    "a byte moved from the salt to the payload": edited(
        salt=b64encode(SALT[:15]).decode(), payload=b64encode(SALT[15:] + PAYLOAD).decode()
    ),
    "another payload and an entry to match": replace(
        GOOD, entry=_rewritten[INDEX], payload=b'{"a":2}'
    ).encode(),
    "another payload and its commitment, redacted": replace(
        REDACTED, entry=_rewritten[INDEX], payload=b'{"a":2}'
    ).encode(),
    "another time": replace(GOOD, entry=GOOD.entry.replace(b"T20:13", b"T20:14")).encode(),
    "another call": replace(GOOD, entry=GOOD.entry.replace(b"DOE30", b"DOE31")).encode(),
    "the neighbour's proof": replace(GOOD, proof=_neighbour.proof).encode(),
    "the neighbour's entry": replace(GOOD, entry=_neighbour.entry).encode(),
    "an entry that stands at another position than it says": evidence_of(_misplaced, INDEX).encode(),
    "another index": proof_text(f"index {INDEX}", f"index {INDEX - 1}"),
    "an index beyond the tree": proof_text(f"index {INDEX}", f"index {SIZE}"),
    "a sibling changed": proof_text(_first_sibling, _flipped_sibling),
    "a sibling left out": proof_text(f"{_first_sibling}\n", ""),
    "a sibling too many": proof_text(_first_sibling, f"{_first_sibling}\n{_first_sibling}"),
    "a smaller tree": proof_text(f"\n{SIZE}\n", f"\n{SIZE - 1}\n"),
    "the root of another tree": replace(GOOD, proof=replace(GOOD.proof, note=_other_log.proof.note)).encode(),
    "another tree under the old signature": replace(
        evidence_of(_rewritten, INDEX),
        payload=b'{"a":2}',
        proof=replace(
            evidence_of(_rewritten, INDEX).proof,
            note=Note(evidence_of(_rewritten, INDEX).proof.note.text, GOOD.proof.note.signatures),
        ),
    ).encode(),
    "signed with another key": evidence_of(ENTRIES, INDEX, IMPOSTOR).encode(),
    "signatures of another checkpoint": with_signature_of(_other_log.proof.note),
    "no signature of the log": with_signature_of(Note(GOOD.proof.note.text, GOOD.proof.note.signatures[1:])),
    "the log's signature, and a second, wrong one": with_signature_of(
        Note(GOOD.proof.note.text, GOOD.proof.note.signatures + _other_log.proof.note.signatures[:1])
    ),
    "a checkpoint of another log": proof_text(f"{ORIGIN}\n{SIZE}", f"other.example\n{SIZE}"),
    "a checkpoint of another log under this log's key": replace(
        GOOD,
        proof=replace(
            GOOD.proof, note=Note.sign(GOOD.proof.note.text.replace(ORIGIN, "other.example"), [LOG_SIGNER])
        ),
    ).encode(),
    "the proof's first line changed": proof_text("@v1", "@v2"),
    "another format": edited(format="calltrail-evidence@v2"),
    "no format": edited(format=None),
    "no proof": edited(proof=None),
    "no entry": edited(entry=None),
    "a salt without a payload": edited(payload=None),
    "a payload with stray bits": edited(payload="eyJhIjoxfR=="),
    "a payload that is not base64": edited(payload="{}"),
    "a key twice": GOOD.encode().replace(b'"salt"', b'"payload": "e30=",\n  "salt"'),
    "not JSON": b"evidence",
    "not UTF-8": b'{"format": "\xff"}',
    "an array": b"[]",
    "a number for the entry": edited().replace(b'"entry": ', b'"entry": 1, "more": '),
    "nothing": b"",
    "endless brackets": b"[" * 100_000,
}
