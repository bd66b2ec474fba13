"""Ed25519 keys as text: C2SP verifier keys ("vkeys") and the signer keys of Go's tools.

A key belongs to a name and to a signature type, and its id is made of all three, so that one name can have
several keys (rotation) and a signature of one type cannot pass for one of another.

    verifier key   <name>+<key id, 8 hex digits>+<base64(type ‖ public key)>
    signer key     PRIVATE+KEY+<name>+<key id, 8 hex digits>+<base64(type ‖ seed)>

The first is specified in C2SP signed-note, the second by the code of golang.org/x/mod/sumdb/note.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service.errors import Malformed
from service.tlog.encoding import check_utf8, decode_base64, encode_base64

KEY_BYTES = 32
"""Length of an Ed25519 public key, and of the seed of a private one."""

SIGNATURE_BYTES = 64
"""Length of an Ed25519 signature."""

_SIGNER_PREFIX = "PRIVATE+KEY+"
_KEY_ID = re.compile(r"[0-9a-f]{8}")


class SignatureType(IntEnum):
    """The signature types of C2SP signed-note that are supported here."""

    ED25519 = 0x01
    """A signature over the note's text."""
    COSIGNATURE = 0x04
    """A witness's timestamped signature over a checkpoint (C2SP tlog-cosignature)."""


def check_key_name(name: str, part: str) -> None:
    """Raise `Malformed`, naming `part`, unless the name can stand in a signature line."""
    if not name or "+" in name or not all(character > " " and not character.isspace() for character in name):
        raise Malformed(part, "is not a key name: it must not be empty nor contain spaces, controls or '+'")
    check_utf8(name, part)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key that is trusted under a name, for one type of signature."""

    name: str
    type: SignatureType
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name, "verifier key")
        if len(self.public_key) != KEY_BYTES:
            raise Malformed("verifier key", f"a public key has {KEY_BYTES} bytes, not {len(self.public_key)}")

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of SHA-256(name ‖ newline ‖ type ‖ public key)."""
        named = f"{self.name}\n".encode() + bytes([self.type]) + self.public_key
        return hashlib.sha256(named).digest()[:4]

    def encode(self) -> str:
        """Return the vkey."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.type]) + self.public_key)}"

    @classmethod
    def decode(cls, vkey: str) -> VerifierKey:
        """Read a vkey. Raises `Malformed`, also for a signature type that is not supported."""
        name, key_id, type_, public_key = _split(vkey, "verifier key")
        key = cls(name, type_, public_key)
        if key.key_id != key_id:
            raise Malformed("verifier key", f"the id of this key is {key.key_id.hex()}, not {key_id.hex()}")
        return key

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Tell whether this is the key's Ed25519 signature (64 bytes) of the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A private key with its name and type of signature. Its seed is not shown by `repr`."""

    name: str
    type: SignatureType
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_key_name(self.name, "signer key")
        if len(self.seed) != KEY_BYTES:
            raise Malformed("signer key", f"a seed has {KEY_BYTES} bytes, not {len(self.seed)}")

    @property
    def verifier_key(self) -> VerifierKey:
        public_key = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
        return VerifierKey(self.name, self.type, public_key)

    def encode(self) -> str:
        """Return the key as Go's tools read it. A secret."""
        key_id = self.verifier_key.key_id.hex()
        return f"{_SIGNER_PREFIX}{self.name}+{key_id}+{encode_base64(bytes([self.type]) + self.seed)}"

    @classmethod
    def decode(cls, text: str) -> SignerKey:
        """Read what `encode` or Go's tools wrote. Raises `Malformed`, without a word of the secret."""
        if not text.startswith(_SIGNER_PREFIX):
            raise Malformed("signer key", f"does not begin with {_SIGNER_PREFIX}")
        name, key_id, type_, seed = _split(text.removeprefix(_SIGNER_PREFIX), "signer key")
        key = cls(name, type_, seed)
        if key.verifier_key.key_id != key_id:
            raise Malformed("signer key", "its id does not belong to its name and secret")
        return key

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature (64 bytes) of the message."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def _split(text: str, part: str) -> tuple[str, bytes, SignatureType, bytes]:
    """Return name, key id, type and key. Only the first two '+' separate: base64 may contain more."""
    name, _, rest = text.partition("+")
    key_id, _, material = rest.partition("+")
    if not _KEY_ID.fullmatch(key_id):
        raise Malformed(part, "is not <name>+<8 lower-case hex digits>+<base64>")
    typed = decode_base64(material, part)
    try:
        type_ = SignatureType(typed[0])
    except (IndexError, ValueError):
        raise Malformed(part, "is not of type 0x01 (Ed25519) or 0x04 (Ed25519 cosignature)") from None
    return name, bytes.fromhex(key_id), type_, typed[1:]
