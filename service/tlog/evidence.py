"""Evidence: one event, with all that is needed to prove it to a stranger who trusts nothing but a key.

A JSON object, of which docs/verify.md is the specification for others and docs/verify_proof.py a verifier of
its own::

    {
      "format": "calltrail-evidence@v1",
      "proof": "<a C2SP tlog-proof, verbatim>",
      "entry": "<the entry, verbatim>",
      "salt": "<base64, 16 bytes>",          absent when the payload was redacted
      "payload": "<base64>"                  what stands now in the log; may be absent when it was redacted
    }

`Evidence.verify` goes from the payload up: SHA-256(salt ‖ payload) is the commitment in the entry, the entry
is the leaf at its own position, the leaf is in the tree, and the tree's root is signed. Without the salt the
first step cannot be taken: the envelope is proved then, and whatever payload is given is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from service.errors import Malformed, ProofRefused
from service.tlog.checkpoint import Checkpoint
from service.tlog.cosignature import Cosignature, CosignatureVerifier
from service.tlog.encoding import check_utf8, decode_base64, encode_base64
from service.tlog.entry import SALT_BYTES, Entry
from service.tlog.merkle import leaf_hash
from service.tlog.note import Verifier
from service.tlog.proof_file import TlogProof

FORMAT = "calltrail-evidence@v1"

LARGEST_EVIDENCE = 16 * 1024 * 1024
"""Longest evidence file in bytes that is read."""

_REQUIRED = {"format", "proof", "entry"}
_OPTIONAL = {"salt", "payload"}


class Verdict(NamedTuple):
    """What a piece of evidence proved, and by whose word.

    `payload_proved` is false when the payload was redacted: then the entry is proved, and no payload.
    """

    entry: Entry
    checkpoint: Checkpoint
    cosignatures: tuple[Cosignature, ...]
    payload_proved: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """A proof, the entry that it is about, and the payload with the salt that opens the entry's commitment.

    Raises `Malformed` when there is a salt without a payload, or one that does not have 16 bytes.
    """

    proof: TlogProof
    entry: bytes
    payload: bytes | None = None
    salt: bytes | None = None

    def __post_init__(self) -> None:
        if self.salt is None:
            return
        if len(self.salt) != SALT_BYTES:
            raise Malformed("evidence, salt", f"has {len(self.salt)} bytes, a salt has {SALT_BYTES}")
        if self.payload is None:
            raise Malformed(
                "evidence", "has a salt but no payload; give both, or neither when it was redacted"
            )

    def encode(self) -> bytes:
        """Return the file: UTF-8, ends with a newline."""
        fields = {
            "format": FORMAT,
            "proof": self.proof.encode().decode(),
            "entry": self.entry.decode("ascii"),
        }
        if self.salt is not None:
            fields["salt"] = encode_base64(self.salt)
        if self.payload is not None:
            fields["payload"] = encode_base64(self.payload)
        return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Evidence:
        """Read a file without believing it. Raises `Malformed`."""
        if len(data) > LARGEST_EVIDENCE:
            raise Malformed("evidence", f"{len(data)} bytes; at most {LARGEST_EVIDENCE} are accepted")
        try:
            fields = json.loads(data.decode(), object_pairs_hook=_each_key_once)
        except (ValueError, RecursionError):
            raise Malformed("evidence", "is not JSON in UTF-8") from None
        if not isinstance(fields, dict) or not _REQUIRED <= set(fields) <= _REQUIRED | _OPTIONAL:
            raise Malformed(
                "evidence", "must be an object with format, proof and entry, and maybe salt and payload"
            )
        for key, value in fields.items():
            if not isinstance(value, str):
                raise Malformed(f"evidence, {key}", "is not a string")
            check_utf8(value, f"evidence, {key}")
        if fields["format"] != FORMAT:
            raise Malformed("evidence, format", f"is not {FORMAT}")
        return cls(
            TlogProof.decode(fields["proof"].encode()),
            fields["entry"].encode(),
            _decode_optional(fields, "payload"),
            _decode_optional(fields, "salt"),
        )

    def verify(
        self, origin: str, log_keys: Iterable[Verifier], witnesses: Iterable[CosignatureVerifier] = ()
    ) -> Verdict:
        """Prove the event; see the module's text for the steps.

        The answer names those of `witnesses` who cosigned; whether they are enough is for the caller to
        decide. Raises `ProofRefused`, `SignatureRefused` or `Malformed`.
        """
        entry = Entry.decode(self.entry)
        payload_proved = self.salt is not None and self.payload is not None
        if self.salt is not None and self.payload is not None and not entry.opens(self.salt, self.payload):
            raise ProofRefused("the payload is not the one that the entry commits to")
        if entry.position != self.proof.index:
            raise ProofRefused(f"the proof is of leaf {self.proof.index}, the entry says {entry.position}")
        proven = self.proof.verify(leaf_hash(self.entry), origin, log_keys, witnesses)
        return Verdict(entry, proven.checkpoint, proven.cosignatures, payload_proved)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that says one thing to one reader and another thing to the next."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed("evidence", "has a key twice")
    return fields


def _decode_optional(fields: dict[str, str], key: str) -> bytes | None:
    return decode_base64(fields[key], f"evidence, {key}") if key in fields else None
