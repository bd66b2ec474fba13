#!/usr/bin/env python3
# ruff: noqa: T201 -- a program for readers to run and to copy: printing is all it does
"""Check one calltrail evidence bundle, offline, trusting nothing but the public key on the command line.

    verify_bundle.py BUNDLE LOG_VKEY

It needs Python 3.11, the package `cryptography`, and verify_proof.py beside it; nothing of calltrail.
Exit status: 0 intact, 1 altered, 2 wrong usage or no such file.
"""

import hashlib
import json
import sys
import zipfile
import zlib
from pathlib import Path

from verify_proof import (
    ED25519,
    Refused,
    check_signature,
    each_key_once,
    from_base64,
    from_decimal,
    require,
    root_from,
    sha256,
    verify,
)


def read_json(data: bytes) -> dict:
    return json.loads(data.decode(), object_pairs_hook=each_key_once)


def check_export(archive: zipfile.ZipFile, vkey: str) -> None:
    """Require that the log holds the export that made this bundle's manifest."""
    evidence = archive.read("export.json")
    _, payload_proved = verify(evidence, vkey, [])
    require(payload_proved, "export.json: its payload is not proved")
    fields = read_json(evidence)
    require(
        read_json(fields["entry"].encode())["kind"] == "AuditExported", "export.json: another kind of event"
    )
    stated = read_json(from_base64(fields["payload"]))["sha256"]
    found = hashlib.sha256(archive.read("manifest.json")).hexdigest()
    require(stated == found, "manifest.json: not the one that the log knows")


def check_files(archive: zipfile.ZipFile) -> dict:
    """Require exactly the files that the manifest names, with the contents it names."""
    manifest = read_json(archive.read("manifest.json"))
    require(manifest["format"] == "calltrail-bundle@v1", "manifest.json: another format")
    named = {**manifest["files"], "manifest.json": None, "export.json": None}
    for name in sorted(archive.namelist()):
        require(name in named, f"{name}: there twice, or not in the manifest")
        stated = named.pop(name)
        if stated is not None:
            with archive.open(name) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            require(digest == stated["sha256"], f"{name}: altered")
    require(not named, f"{', '.join(named)}: missing")
    return manifest


def check_events(archive: zipfile.ZipFile, vkey: str) -> tuple[set[int], int]:
    """Require that each event is in the checkpoint's tree; return positions, and how many are redacted."""
    note = archive.read("checkpoint").decode()
    origin, size, root = note.split("\n")[:3]
    require(origin == vkey.partition("+")[0], "checkpoint: of another log")
    check_signature(note, vkey, ED25519)
    positions, redacted = set(), 0
    with archive.open("events.jsonl") as lines:
        for number, line in enumerate(lines, 1):
            place = f"events.jsonl, line {number}"
            event = read_json(line)
            entry = read_json(event["entry"].encode())
            require(entry["v"] == 1 and entry["position"] == event["position"], f"{place}: another entry")
            if "salt" in event:
                salted = from_base64(event["salt"], 16) + from_base64(event["payload"])
                require(
                    sha256(salted) == from_base64(entry["commitment"], 32),
                    f"{place}: the payload was altered",
                )
            siblings = [from_base64(sibling, 32) for sibling in event["proof"]]
            leaf = sha256(b"\x00" + event["entry"].encode())
            found = root_from(leaf, event["position"], from_decimal(size), siblings)
            require(found == from_base64(root, 32), f"{place}: not in the tree")
            positions.add(event["position"])
            redacted += "salt" not in event
    return positions, redacted


def check_transfers(archive: zipfile.ZipFile, positions: set[int]) -> int:
    """Require that each transfer's steps and evidence are there; return how many transfers there are."""
    number = 0
    with archive.open("transfers.jsonl") as lines:
        for number, line in enumerate(lines, 1):
            transfer = read_json(line)
            steps = json.loads(transfer["steps"])
            needed = {step["position"] for step in steps} | set(json.loads(transfer["evidence"]))
            require(
                needed <= positions, f"transfers.jsonl, line {number}: an event that it rests on is missing"
            )
    return number


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    path, vkey = arguments
    if not Path(path).is_file():
        print(f"{path}: no such file", file=sys.stderr)
        return 2
    try:
        with zipfile.ZipFile(path) as archive:
            check_export(archive, vkey)
            manifest = check_files(archive)
            positions, redacted = check_events(archive, vkey)
            transfers = check_transfers(archive, positions)
            require(
                transfers == manifest["transfers"], "transfers.jsonl: another number than the manifest says"
            )
    except Refused as refused:
        print(f"ALTERED: {refused}")
        return 1
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as broken:
        print(f"ALTERED: not well-formed ({broken!a})")
        return 1
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError) as broken:
        print(f"ALTERED: not a readable zip ({broken!a})")
        return 1
    print(f"intact: {transfers} transfers, {len(positions)} events, {redacted} of them redacted")
    print(f"  asked: {manifest['asked']!a}, by {manifest['by']!a}, {manifest['created']}")
    print(f"  signed by {vkey.partition('+')[0]} at size {manifest['size']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
