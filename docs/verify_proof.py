#!/usr/bin/env python3
# ruff: noqa: T201 -- a program for readers to run and to copy: printing is all it does
"""Check one calltrail evidence file, offline, trusting nothing but the public keys on the command line.

    verify_proof.py FILE LOG_VKEY [WITNESS_VKEY ...]

Each witness named must have cosigned. It needs Python 3.11 and the package `cryptography`, and nothing of
calltrail: docs/verify.md is what it follows. Exit status: 0 all proved, 3 entry proved but payload redacted,
1 refused, 2 wrong usage or no such file.
"""

import base64
import hashlib
import json
import re
import sys
from pathlib import Path

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ModuleNotFoundError:
    print("could not check: the package `cryptography` is missing (pip install cryptography)")
    sys.exit(2)

ED25519, COSIGNATURE = 1, 4  # signature types of C2SP signed-note


class Refused(Exception):
    """The evidence does not prove what it claims."""


def require(condition: bool, otherwise: str) -> None:  # noqa: FBT001 -- reads as a sentence, like assert
    if not condition:
        raise Refused(otherwise)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def from_base64(text: str, length: int | None = None) -> bytes:
    data = base64.b64decode(text, validate=True)
    require(base64.b64encode(data).decode() == text, f"not canonical base64: {text!a}")
    require(length in {None, len(data)}, f"not {length} bytes in base64: {text!a}")
    return data


def from_decimal(text: str) -> int:
    require(re.fullmatch("0|[1-9][0-9]{0,18}", text) is not None, f"not a decimal: {text!a}")
    return int(text)


def each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    require(len(dict(pairs)) == len(pairs), "a key stands twice in a JSON object")
    return dict(pairs)


def check_signature(note: str, vkey: str, signature_type: int) -> None:
    """Require that this key has signed the note, and that each line which bears its name and id is right."""
    name, key_id, material = vkey.split("+", 2)
    typed_key = from_base64(material, 33)
    require(typed_key[0] == signature_type, f"{vkey} is a key of another type")
    require(sha256(f"{name}\n".encode() + typed_key)[:4].hex() == key_id, f"{vkey} has a wrong key id")
    text, _, lines = note.removesuffix("\n").rpartition("\n\n")
    signed = False
    for line in lines.split("\n"):
        dash, signer, encoded = line.split(" ")
        signature, message = from_base64(encoded), f"{text}\n".encode()
        if (dash, signer, signature[:4].hex()) != ("\N{EM DASH}", name, key_id):
            continue
        signature = signature[4:]
        if signature_type == COSIGNATURE:
            time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            message = f"cosignature/v1\ntime {time}\n".encode() + message
        try:
            Ed25519PublicKey.from_public_bytes(typed_key[1:]).verify(signature, message)
        except InvalidSignature:
            raise Refused(f"the signature of {name} is wrong") from None
        signed = True
    require(signed, f"{name} has not signed the checkpoint")


def root_from(leaf: bytes, index: int, size: int, siblings: list[bytes]) -> bytes:
    """Return the root that an inclusion proof leads to (RFC 9162 section 2.1.3.2)."""
    require(index < size, f"a tree of {size} leaves has no leaf {index}")
    node, last, root = index, size - 1, leaf
    for sibling in siblings:
        require(last > 0, "the proof is too long")
        if node % 2 or node == last:
            root = sha256(b"\x01" + sibling + root)
            while node and node % 2 == 0:
                node, last = node // 2, last // 2
        else:
            root = sha256(b"\x01" + root + sibling)
        node, last = node // 2, last // 2
    require(last == 0, "the proof is too short")
    return root


def verify(file: bytes, log_vkey: str, witness_vkeys: list[str]) -> tuple[list[str], bool]:
    """Return what is proved, in words, and whether the payload is. Raise Refused, or as broken files do."""
    evidence = json.loads(file.decode(), object_pairs_hook=each_key_once)
    require(evidence["format"] == "calltrail-evidence@v1", "not a calltrail-evidence@v1 file")

    # 1. The payload opens the commitment in the entry.
    entry = json.loads(evidence["entry"], object_pairs_hook=each_key_once)
    require(entry["v"] == 1, "an entry of another version")
    payload = from_base64(evidence["payload"]) if "payload" in evidence else None
    if "salt" in evidence:
        salted = from_base64(evidence["salt"], 16) + from_base64(evidence["payload"])
        require(sha256(salted) == from_base64(entry["commitment"], 32), "the payload is not the one recorded")

    # 2. The entry is the leaf at its own position.
    head, _, note = evidence["proof"].partition("\n\n")
    header, *lines = head.split("\n")
    require(header == "c2sp.org/tlog-proof@v1", "not a c2sp.org/tlog-proof@v1")
    if lines[0].startswith("extra "):
        del lines[0]
    require(lines[0].startswith("index "), "the proof has no index")
    index = from_decimal(lines[0].removeprefix("index "))
    require(entry["position"] == index, f"a proof of leaf {index} for the entry at {entry['position']!a}")

    # 3. The leaf is in the tree of the checkpoint.
    origin, size, root = note.split("\n")[:3]
    siblings = [from_base64(line, 32) for line in lines[1:]]
    leaf = sha256(b"\x00" + evidence["entry"].encode())
    found = root_from(leaf, index, from_decimal(size), siblings)
    require(found == from_base64(root, 32), "the entry is not in the tree")

    # 4. The checkpoint is the log's, and the witnesses saw it.
    require(origin == log_vkey.partition("+")[0], f"a checkpoint of {origin!a}, and a key of another log")
    check_signature(note, log_vkey, ED25519)
    for vkey in witness_vkeys:
        check_signature(note, vkey, COSIGNATURE)

    report = [f"proved: the entry at position {index} of the log {origin}, signed at size {size}"]
    report += [f"  {key}: {entry[key]!a}" for key in ("id", "stream", "kind", "recorded_at")]
    report += [f"  cosigned by {vkey.partition('+')[0]}" for vkey in witness_vkeys]
    if "salt" in evidence:
        report.append("proved: its payload")
    else:
        report.append("NOT PROVED: its payload, which was redacted")
    if payload is not None:
        report += [
            f"  SHA-256: {sha256(payload).hex()}",
            f"  {payload.decode('utf-8', 'backslashreplace')!a}",
        ]
    return report, "salt" in evidence


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    path, log_vkey, *witness_vkeys = arguments
    try:
        file = Path(path).read_bytes()
    except OSError as unreadable:
        print(unreadable, file=sys.stderr)
        return 2
    try:
        report, payload_proved = verify(file, log_vkey, witness_vkeys)
    except Refused as refused:
        print(f"REFUSED: {refused}")
        return 1
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as broken:
        print(f"REFUSED: not well-formed ({broken!a})")
        return 1
    print("\n".join(report))
    return 0 if payload_proved else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
