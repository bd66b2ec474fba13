"""Offline proofs (C2SP tlog-proof): one text that proves, to whoever trusts a key, that a leaf is in the log.

    c2sp.org/tlog-proof@v1
    extra <base64>            optional, and not authenticated
    index <leaf's index>
    <base64 sibling>          none or more, the leaf's own first
    <empty line>
    <the checkpoint as it was signed>

The leaf itself is not in it: the verifier computes its hash from the data in question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from service.errors import Malformed
from service.tlog.checkpoint import Checkpoint, verify_checkpoint
from service.tlog.cosignature import Cosignature, CosignatureVerifier, verify_cosignatures
from service.tlog.encoding import (
    HASH_BYTES,
    LARGEST_SIZE,
    decode_base64,
    decode_decimal,
    decode_hash,
    encode_base64,
)
from service.tlog.note import LARGEST_NOTE, Note, Verifier
from service.tlog.proofs import verify_inclusion

LARGEST_PROOF = 2 * LARGEST_NOTE
"""Longest proof in bytes that is read: a note, and as much again for `extra`."""

_HEADER = "c2sp.org/tlog-proof@v1"
_MOST_SIBLINGS = 63


class Proven(NamedTuple):
    """What a proof established: the checkpoint that holds the leaf, and the known witnesses who saw it."""

    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]


@dataclass(frozen=True, slots=True)
class TlogProof:
    """The inclusion proof of leaf `index`, with the signed checkpoint that it leads to; believed or not.

    Raises `Malformed` when the index or the siblings cannot be those of a tree.
    """

    index: int
    siblings: tuple[bytes, ...]
    note: Note
    extra: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.index <= LARGEST_SIZE:
            raise Malformed("tlog-proof", f"index {self.index} is not between 0 and 2^63 - 1")
        if len(self.siblings) > _MOST_SIBLINGS or any(len(each) != HASH_BYTES for each in self.siblings):
            raise Malformed("tlog-proof", f"has more than {_MOST_SIBLINGS} siblings, or one not of 32 bytes")

    def encode(self) -> bytes:
        lines = [_HEADER]
        if self.extra:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [encode_base64(sibling) for sibling in self.siblings]
        return "".join(f"{line}\n" for line in (*lines, "")).encode() + self.note.encode()

    @classmethod
    def decode(cls, data: bytes) -> TlogProof:
        """Read a proof without believing it; ``decode(data).encode() == data``. Raises `Malformed`."""
        if len(data) > LARGEST_PROOF:
            raise Malformed("tlog-proof", f"{len(data)} bytes; at most {LARGEST_PROOF} are accepted")
        head, separator, note = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise Malformed("tlog-proof", "its lines before the checkpoint are not ASCII") from None
        if not separator or lines.pop(0) != _HEADER:
            raise Malformed(
                "tlog-proof", f"must begin with {_HEADER} and have an empty line before the checkpoint"
            )
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), "tlog-proof, extra line")
            if not extra:
                raise Malformed("tlog-proof, extra line", "is empty; leave it out")
        if not lines or not lines[0].startswith("index "):
            raise Malformed("tlog-proof", "has no index line where one is due")
        index = decode_decimal(lines.pop(0).removeprefix("index "), "tlog-proof, index line")
        siblings = tuple(decode_hash(line, "tlog-proof, sibling line") for line in lines)
        return cls(index, siblings, Note.decode(note), extra)

    def verify(
        self,
        leaf_hash: bytes,
        origin: str,
        log_keys: Iterable[Verifier],
        witnesses: Iterable[CosignatureVerifier] = (),
    ) -> Proven:
        """Check that the leaf with this hash is in the log of this origin, as one of its keys signed.

        The answer names those of `witnesses` who cosigned; whether they are enough is for the caller to
        decide. Raises `SignatureRefused`, `ProofRefused`, or `Malformed` when the signed text is no
        checkpoint.
        """
        checkpoint = verify_checkpoint(self.note, origin, log_keys)
        cosignatures = verify_cosignatures(self.note, witnesses)
        verify_inclusion(leaf_hash, self.index, checkpoint.size, self.siblings, checkpoint.root)
        return Proven(checkpoint, cosignatures)
