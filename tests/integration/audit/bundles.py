"""Bundles and the ways to alter them."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Files = list[tuple[str, bytes]]
Alteration = Callable[[Files], Files]


def read(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def write(path: Path, files: Files) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)


def alterations(names: list[str]) -> Iterator[tuple[str, Alteration]]:
    """Each way to alter a bundle, with its name. The forger does all that can be done without the key."""
    for name in names:
        yield f"a byte of {name}", changed(name, flipped)
        yield f"no {name}", lambda files, name=name: [file for file in files if file[0] != name]
        if name not in {"manifest.json", "export.json"}:
            yield f"a byte of {name}, the manifest made to fit", refitted(changed(name, flipped))
    yield "a file added", lambda files: [*files, ("note.txt", b"see other bundle")]
    yield "a file added, the manifest made to fit", refitted(lambda files: [*files, ("note.txt", b"x")])
    for name in ("transfers.jsonl", "events.jsonl"):
        yield (
            f"the last line of {name} left out, the manifest made to fit",
            refitted(changed(name, shortened)),
        )
        yield f"a line of {name} doubled, the manifest made to fit", refitted(changed(name, doubled))
    for field, value in (("outcome", "failed"), ("destination", "99999"), ("agent", "someone-else")):
        yield (
            f"another {field} in a row, the manifest made to fit",
            refitted(changed("transfers.jsonl", edited(0, **{field: value}))),
        )
    yield (
        "another payload of an event, the manifest made to fit",
        refitted(changed("events.jsonl", edited(3, payload=base64.b64encode(b"forged").decode()))),
    )
    yield "no salt at an event, the manifest made to fit", refitted(changed("events.jsonl", unsalted))
    yield (
        "the manifest says another asker",
        changed("manifest.json", lambda data: data.replace(b"Ada", b"Eve")),
    )
    yield "the export's evidence says another hash", changed("export.json", resigned)


def changed(name: str, change: Callable[[bytes], bytes]) -> Alteration:
    return lambda files: [(file, change(data) if file == name else data) for file, data in files]


def refitted(alteration: Alteration) -> Alteration:
    """An alteration after which the manifest names the hashes that the files now have."""

    def altered(files: Files) -> Files:
        made = alteration(files)
        manifest = json.loads(dict(made)["manifest.json"])
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in made
            if name not in {"manifest.json", "export.json"}
        }
        lines = dict(made)["transfers.jsonl"].count(b"\n")
        manifest["transfers"] = lines
        return changed("manifest.json", lambda _: (json.dumps(manifest, indent=2) + "\n").encode())(made)

    return altered


def flipped(data: bytes) -> bytes:
    """`data` with one bit changed near its middle; something in place of nothing."""
    if not data:
        return b"x"
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def shortened(data: bytes) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:-1])


def doubled(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join([*lines, lines[0]])


def edited(number: int, **fields: Any) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        lines[number] = (json.dumps(json.loads(lines[number]) | fields) + "\n").encode()
        return b"".join(lines)

    return edit


def unsalted(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    event = json.loads(lines[0])
    del event["salt"]
    return b"".join([(json.dumps(event) + "\n").encode(), *lines[1:]])


def resigned(data: bytes) -> bytes:
    """The export's evidence with another manifest's hash in its payload."""
    fields = json.loads(data)
    payload = json.loads(base64.b64decode(fields["payload"])) | {"sha256": "0" * 64}
    fields["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    return json.dumps(fields).encode()
