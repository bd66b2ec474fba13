"""Checkpoints (C2SP tlog-checkpoint): a log's signed word on its size and root.

    <origin>            who: equals the name of the log's key
    <tree size>         decimal
    <root hash>         base64
    <extension lines>   none are written here; others' are kept, and nobody audits them

A log must never sign two checkpoints of which one tree does not begin with the other. So the caller signs
only sizes that are committed, stores the signed checkpoint before it shows it to anybody, and on start checks
the stored one against the tree (`plans.root_plan`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.errors import Malformed, SignatureRefused
from service.tlog.encoding import (
    HASH_BYTES,
    LARGEST_SIZE,
    decode_decimal,
    decode_hash,
    encode_base64,
)
from service.tlog.merkle import EMPTY_ROOT
from service.tlog.note import Note, Signer, Verifier

_FIXED_LINES = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the log's origin, the number of leaves and the 32-byte root.

    Raises `Malformed` when a line would be empty or broken, or when an empty tree has another root than
    SHA-256(""), as C2SP tlog-witness demands.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line:
                raise Malformed(
                    "checkpoint", "its origin and its extension lines are each one line, not empty"
                )
        if not 0 <= self.size <= LARGEST_SIZE:
            raise Malformed("checkpoint", f"tree size {self.size} is not between 0 and 2^63 - 1")
        if len(self.root) != HASH_BYTES:
            raise Malformed("checkpoint", f"a root hash has {HASH_BYTES} bytes, not {len(self.root)}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise Malformed("checkpoint", "an empty tree has the root SHA-256 of nothing")

    @property
    def text(self) -> str:
        """What is signed."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a checkpoint's text; ``parse(text).text == text``. Raises `Malformed`."""
        lines = text.split("\n")
        if len(lines) <= _FIXED_LINES or lines.pop():
            raise Malformed("checkpoint", "must have three lines or more, each with its newline")
        origin, size, root, *extensions = lines
        return cls(
            origin,
            decode_decimal(size, "checkpoint, line 2 (tree size)"),
            decode_hash(root, "checkpoint, line 3 (root hash)"),
            tuple(extensions),
        )

    def sign(self, signers: Iterable[Signer]) -> Note:
        """Sign with the log's key, or with the old and the new one while it is being replaced.

        Raises `Malformed` when a key's name is not the origin.
        """
        note = Note.sign(self.text, signers)
        for signature in note.signatures:
            if signature.name != self.origin:
                raise Malformed("signer key", f"is named {signature.name}, the log's origin is {self.origin}")
        return note


def verify_checkpoint(note: Note, origin: str, log_keys: Iterable[Verifier]) -> Checkpoint:
    """Return the checkpoint in a note, if one of the log's keys signed it and it is this log's.

    Raises `SignatureRefused` when it is not, `Malformed` when the signed text is no checkpoint.
    """
    note.verify(log_keys)
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin:
        raise SignatureRefused(f"this checkpoint is of the log {checkpoint.origin}, not of {origin}")
    return checkpoint
