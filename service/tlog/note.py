"""Signed notes (C2SP signed-note): a text, an empty line, and a line for each signature.

    <text, ends with a newline>
    <empty line>
    — <key name> <base64(4-byte key id ‖ signature)>

Nothing in a note may be believed before `Note.verify` has returned. How a signature is made is left to the
`Signer` and `Verifier` given, one class for each signature type; that of plain Ed25519 is here, that of
witnesses in `service.tlog.cosignature`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from service.errors import Malformed, SignatureRefused
from service.tlog.encoding import check_utf8, decode_base64, encode_base64
from service.tlog.keys import (
    SIGNATURE_BYTES,
    SignatureType,
    SignerKey,
    VerifierKey,
    check_key_name,
)

LARGEST_NOTE = 1_000_000
"""Longest note in bytes that is read or written, as in Go's tools."""

MOST_SIGNATURES = 100
"""Most signature lines that are read or written, as in Go's tools (C2SP asks for at least 16)."""

_KEY_ID_BYTES = 4
_DASH = "\N{EM DASH} "
_SEPARATOR = "\n\n"
_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteSignature(NamedTuple):
    """One signature line: the key's name and 4-byte id, and the signature in the form of the key's type."""

    name: str
    key_id: bytes
    signature: bytes

    def encode(self) -> str:
        """Return the line, with its newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"

    @classmethod
    def decode(cls, line: str) -> NoteSignature:
        """Read a signature line without its newline. Raises `Malformed`."""
        part = "signature line"
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH):
            raise Malformed(part, "does not begin with an em dash and a space")
        check_key_name(name, part)
        data = decode_base64(encoded, part)
        if len(data) <= _KEY_ID_BYTES:
            raise Malformed(part, "is too short for a key id and a signature")
        return cls(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])


class Signer(Protocol):
    """Whatever can sign a note's text."""

    def sign(self, text: str) -> NoteSignature: ...


class Verifier(Protocol):
    """Whatever can check a signature of its key over a note's text."""

    @property
    def key(self) -> VerifierKey: ...

    def verifies(self, text: str, signature: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Note:
    """A text with its signatures, believed or not.

    Raises `Malformed` when the text does not end with a newline, contains other control characters or is not
    Unicode, or when there are no signatures or more than 100.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n") or _FORBIDDEN.search(self.text):
            raise Malformed("note", "its text must end with a newline and have no other control characters")
        check_utf8(self.text, "note")
        if not 1 <= len(self.signatures) <= MOST_SIGNATURES:
            raise Malformed("note", f"{len(self.signatures)} signatures; 1 to {MOST_SIGNATURES} are accepted")

    @classmethod
    def sign(cls, text: str, signers: Iterable[Signer]) -> Note:
        """Sign a text with each signer (several while a key is being replaced). Raises `Malformed`."""
        return cls(text, tuple(signer.sign(text) for signer in signers))

    def with_signatures(self, signatures: Iterable[NoteSignature]) -> Note:
        """Return the note with signatures added, such as those of witnesses."""
        return Note(self.text, (*self.signatures, *signatures))

    def encode(self) -> bytes:
        """Return the note as it travels. Raises `Malformed` beyond 1,000,000 bytes."""
        lines = "".join(signature.encode() for signature in self.signatures)
        return _check_length(f"{self.text}\n{lines}".encode())

    @classmethod
    def decode(cls, data: bytes) -> Note:
        """Read a note without believing it. Raises `Malformed`."""
        try:
            content = _check_length(data).decode()
        except UnicodeDecodeError:
            raise Malformed("note", "is not UTF-8") from None
        end_of_text = content.rfind(_SEPARATOR) + 1
        lines = content[end_of_text + 1 :]
        if not end_of_text or not lines.endswith("\n"):
            raise Malformed("note", "must end with an empty line and signature lines, each with its newline")
        signatures = tuple(NoteSignature.decode(line) for line in lines[:-1].split("\n"))
        return cls(content[:end_of_text], signatures)

    def signed_by(self, trusted: Iterable[Verifier]) -> tuple[NoteSignature, ...]:
        """Return the first signature of each trusted key that signed; signatures of unknown keys are ignored.

        Raises `SignatureRefused` when a signature bears a trusted key's name and id and does not verify.
        """
        by_key = {(verifier.key.name, verifier.key.key_id): verifier for verifier in trusted}
        verified: dict[tuple[str, bytes], NoteSignature] = {}
        for signature in self.signatures:
            key = signature.name, signature.key_id
            if key not in by_key:
                continue
            if not by_key[key].verifies(self.text, signature.signature):
                raise SignatureRefused(
                    f"the signature of {signature.name} (key {signature.key_id.hex()}) does not fit the text"
                )
            verified.setdefault(key, signature)
        return tuple(verified.values())

    def verify(self, trusted: Iterable[Verifier]) -> tuple[NoteSignature, ...]:
        """Like `signed_by`, but raise `SignatureRefused` also when no trusted key has signed."""
        verified = self.signed_by(trusted)
        if not verified:
            names = ", ".join(sorted({signature.name for signature in self.signatures}))
            raise SignatureRefused(f"no trusted key has signed this note, only: {names}")
        return verified


@dataclass(frozen=True, slots=True)
class Ed25519Signer:
    """Signs the text itself (type 0x01). Raises `Malformed` for a key of another type."""

    key: SignerKey

    def __post_init__(self) -> None:
        _check_type(self.key.type)

    def sign(self, text: str) -> NoteSignature:
        return NoteSignature(self.key.name, self.key.verifier_key.key_id, self.key.sign(text.encode()))


@dataclass(frozen=True, slots=True)
class Ed25519Verifier:
    """Checks signatures of the text itself (type 0x01). Raises `Malformed` for a key of another type."""

    key: VerifierKey

    def __post_init__(self) -> None:
        _check_type(self.key.type)

    def verifies(self, text: str, signature: bytes) -> bool:
        return len(signature) == SIGNATURE_BYTES and self.key.verifies(text.encode(), signature)


def _check_type(type_: SignatureType) -> None:
    if type_ is not SignatureType.ED25519:
        raise Malformed("key", f"type {type_:#04x} does not sign notes, give one of type 0x01 (Ed25519)")


def _check_length(note: bytes) -> bytes:
    if len(note) > LARGEST_NOTE:
        raise Malformed("note", f"{len(note)} bytes; at most {LARGEST_NOTE} are accepted")
    return note
