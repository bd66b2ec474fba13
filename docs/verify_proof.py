"""Check a file made by `calltrail prove` with nothing of calltrail: the standard library and `cryptography`.

python verify_proof.py event-42.json 'calltrail.log/…+1689c071+AW…'
"""

import hashlib
import json
import sys
from base64 import b64decode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sha256(data):
    return hashlib.sha256(data).digest()


def main(path, vkey):
    with open(path, encoding="utf-8") as file:
        evidence = json.load(file)
    head, _, note = evidence["proof"].partition("\n\n")
    lines = head.split("\n")
    assert lines.pop(0) == "c2sp.org/tlog-proof@v1", "not a tlog-proof"
    if lines[0].startswith("extra "):
        lines.pop(0)
    index = int(lines.pop(0).removeprefix("index "))
    siblings = [b64decode(line, validate=True) for line in lines]

    # 1. The checkpoint is signed by the key that we trust.
    end = note.rindex("\n\n") + 1
    text, signatures = note[:end], note[end + 1 :].splitlines()
    name, key_id, material = vkey.split("+", 2)
    public_key = b64decode(material)[1:]
    assert sha256(name.encode() + b"\n\x01" + public_key)[:4].hex() == key_id, "not a key's id"
    signed = [b64decode(s.split(" ")[2]) for s in signatures if s.startswith(f"\N{EM DASH} {name} ")]
    [signature] = [s[4:] for s in signed if s[:4].hex() == key_id]
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text.encode())
    origin, size, root = text.split("\n")[:3]
    assert origin == name, "the checkpoint of another log"

    # 2. The entry is the leaf at `index` of the tree that was signed (RFC 9162, 2.1.3.2).
    entry = evidence["entry"].encode()
    node, last = index, int(size) - 1
    assert 0 <= node <= last, "no such leaf"
    computed = sha256(b"\x00" + entry)
    for sibling in siblings:
        assert last and len(sibling) == 32, "not an inclusion proof"
        if node % 2 or node == last:
            computed = sha256(b"\x01" + sibling + computed)
            while node and node % 2 == 0:
                node, last = node // 2, last // 2
        else:
            computed = sha256(b"\x01" + computed + sibling)
        node, last = node // 2, last // 2
    assert last == 0 and computed == b64decode(root), "the entry is not in the tree"

    # 3. The entry is of this position, and commits to this payload.
    fields = json.loads(entry)
    assert fields["position"] == index, "the proof of another event"
    if "salt" not in evidence:
        return f"position {index} proved; its payload was redacted"
    salt, payload = b64decode(evidence["salt"]), b64decode(evidence["payload"])
    assert len(salt) == 16 and sha256(salt + payload) == b64decode(fields["commitment"]), "another payload"
    return f"position {index} proved, with its payload of {len(payload)} bytes"


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
