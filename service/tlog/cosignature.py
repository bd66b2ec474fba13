"""Cosignatures of witnesses (C2SP tlog-cosignature, type 0x04), and asking for them (C2SP tlog-witness).

A witness signs a checkpoint only if it extends the last one it signed for that log. So a checkpoint that
carries the cosignature of a witness one trusts cannot belong to a second, secret version of the log, not even
one made by whoever holds the log's key. The signature covers the time in seconds and the whole checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.errors import Malformed
from service.tlog.checkpoint import Checkpoint
from service.tlog.encoding import HASH_BYTES, LARGEST_SIZE, encode_base64
from service.tlog.keys import SIGNATURE_BYTES, SignatureType, SignerKey, VerifierKey
from service.tlog.note import Note, NoteSignature

MOST_PROOF_LINES = 63
"""Most consistency proof lines that a witness takes."""

_TIME_BYTES = 8


class Cosignature(NamedTuple):
    """A verified cosignature: the witness's name, and when it signed in POSIX seconds."""

    witness: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness's key. Raises `Malformed` for a key of another type."""

    key: SignerKey

    def __post_init__(self) -> None:
        _check_type(self.key.type)

    def sign(self, checkpoint: Checkpoint, timestamp: int) -> NoteSignature:
        """Cosign a checkpoint at `timestamp`, in POSIX seconds.

        Whoever calls this has checked, and durably noted, that the checkpoint extends the last one cosigned.
        """
        if not 0 <= timestamp <= LARGEST_SIZE:
            raise Malformed("cosignature", f"time {timestamp} is not between 0 and 2^63 - 1 seconds")
        signature = self.key.sign(_signed_message(checkpoint.text, timestamp))
        return NoteSignature(
            self.key.name, self.key.verifier_key.key_id, timestamp.to_bytes(_TIME_BYTES, "big") + signature
        )


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """Checks a witness's cosignatures. Raises `Malformed` for a key of another type."""

    key: VerifierKey

    def __post_init__(self) -> None:
        _check_type(self.key.type)

    def verifies(self, text: str, signature: bytes) -> bool:
        timestamp = _timestamp(signature)
        return (
            len(signature) == _TIME_BYTES + SIGNATURE_BYTES
            and timestamp <= LARGEST_SIZE
            and self.key.verifies(_signed_message(text, timestamp), signature[_TIME_BYTES:])
        )


def verify_cosignatures(note: Note, witnesses: Iterable[CosignatureVerifier]) -> tuple[Cosignature, ...]:
    """Return the cosignatures of the given witnesses, at most one of each; the caller says how many do.

    Raises `SignatureRefused` when a line bears a witness's name and key id and does not verify.
    """
    return tuple(Cosignature(line.name, _timestamp(line.signature)) for line in note.signed_by(witnesses))


def encode_add_checkpoint(old_size: int, proof: Sequence[bytes], note: Note) -> bytes:
    """Return the body of a witness's ``add-checkpoint`` request.

    `old_size` is the size that the witness last cosigned (0 if none), `proof` the consistency proof from
    there to the signed checkpoint. Raises `Malformed` when the size is negative, or the proof has more than
    63 hashes or one that is not of 32 bytes.
    """
    if old_size < 0:
        raise Malformed("add-checkpoint", f"the old size {old_size} is negative")
    if len(proof) > MOST_PROOF_LINES or any(len(each) != HASH_BYTES for each in proof):
        raise Malformed("add-checkpoint", f"the proof must be at most {MOST_PROOF_LINES} hashes of 32 bytes")
    lines = "".join(f"{encode_base64(each)}\n" for each in proof)
    return f"old {old_size}\n{lines}\n".encode() + note.encode()


def _signed_message(text: str, timestamp: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def _timestamp(signature: bytes) -> int:
    return int.from_bytes(signature[:_TIME_BYTES], "big")


def _check_type(type_: SignatureType) -> None:
    if type_ is not SignatureType.COSIGNATURE:
        raise Malformed("key", f"type {type_:#04x} does not cosign, give one of type 0x04 (cosignature)")
