"""Verifying an evidence bundle without a database; the steps are those of VERIFY.md, which lies in it."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from service.audit.bundle import EXPORT, FORMAT, MANIFEST
from service.errors import Malformed, ProofRefused, TlogError
from service.events import AuditExported, decode
from service.tlog.checkpoint import Checkpoint, verify_checkpoint
from service.tlog.encoding import decode_base64, decode_hash
from service.tlog.entry import SALT_BYTES, Entry
from service.tlog.evidence import LARGEST_EVIDENCE, Evidence
from service.tlog.merkle import leaf_hash
from service.tlog.note import LARGEST_NOTE, Ed25519Verifier, Note
from service.tlog.proofs import verify_inclusion

LARGEST_LINE = 64 << 20  # bytes: an event's payload and its proof
LARGEST_MANIFEST = 1 << 20


class Bundle(NamedTuple):
    """What a bundle proved to hold."""

    transfers: int
    events: int
    redacted: int
    asked: str
    by: str
    created: str
    checkpoint: Checkpoint


class _Event(msgspec.Struct):
    position: int
    entry: str
    proof: list[str]
    payload: str
    salt: str | None = None


class _Step(msgspec.Struct):
    position: int


class _Transfer(msgspec.Struct):
    steps: str
    evidence: str


class _File(msgspec.Struct):
    sha256: str
    bytes: int


class _Manifest(msgspec.Struct):
    format: str
    transfers: int
    asked: str
    by: str
    created: str
    files: dict[str, _File]


def verify_bundle(path: Path, keys: Sequence[Ed25519Verifier]) -> Bundle:
    """Check that a bundle is what the log, whose keys these are, has given out.

    Raises:
        ProofRefused: something was altered; the text names the file, and the line.
        SignatureRefused: the log did not sign it.
        Malformed: a file in it, or the zip itself, cannot be read.

    """
    with _opened(path) as archive:
        manifest = _check_files(archive, _check_export(archive, keys))
        checkpoint = verify_checkpoint(
            Note.decode(_read(archive, "checkpoint", LARGEST_NOTE)), keys[-1].key.name, keys
        )
        positions, redacted = _check_events(archive, checkpoint)
        transfers = _check_transfers(archive, positions)
        if transfers != manifest.transfers:
            raise ProofRefused(
                f"transfers.jsonl: has {transfers} transfers, the manifest says {manifest.transfers}"
            )
    return Bundle(
        transfers, len(positions), redacted, manifest.asked, manifest.by, manifest.created, checkpoint
    )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Malformed(path.name, f"is not a readable zip ({error})") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(path.name, f"a file in it is not what it should be ({error})") from None


def _read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    try:
        with archive.open(name) as file:
            data = file.read(limit + 1)
    except KeyError:
        raise ProofRefused(f"{name}: missing") from None
    if len(data) > limit:
        raise Malformed(name, f"has more than {limit} bytes")
    return data


def _check_export(archive: zipfile.ZipFile, keys: Sequence[Ed25519Verifier]) -> bytes:
    """The manifest, which is the one that the log's own event of this export names."""
    evidence = Evidence.decode(_read(archive, EXPORT, LARGEST_EVIDENCE))
    verdict = evidence.verify(keys[-1].key.name, keys)
    if not verdict.payload_proved or evidence.payload is None:
        raise ProofRefused(f"{EXPORT}: its payload is not proved")
    event = decode(verdict.entry.kind, evidence.payload)
    if event is None or not isinstance(event[0], AuditExported):
        raise ProofRefused(f"{EXPORT}: is of another kind of event, {verdict.entry.kind}")
    manifest = _read(archive, MANIFEST, LARGEST_MANIFEST)
    if hashlib.sha256(manifest).hexdigest() != event[0].sha256:
        raise ProofRefused(f"{MANIFEST}: altered: it is not the one that the log knows")
    return manifest


def _check_files(archive: zipfile.ZipFile, data: bytes) -> _Manifest:
    """Check that the zip holds just the files that the manifest names, with the contents it names."""
    manifest = msgspec.json.decode(data, type=_Manifest)
    if manifest.format != FORMAT:
        raise Malformed(MANIFEST, f"is not a {FORMAT}")
    expected: dict[str, _File | None] = {**manifest.files, MANIFEST: None, EXPORT: None}
    for name in sorted(archive.namelist()):
        if name not in expected:
            raise ProofRefused(f"{name}: there twice, or not in the manifest")
        stated = expected.pop(name)
        if stated is not None:
            with archive.open(name) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # reads as files do
            if digest != stated.sha256:
                raise ProofRefused(f"{name}: altered")
    if expected:
        raise ProofRefused(f"{', '.join(expected)}: missing")
    return manifest


def _check_events(archive: zipfile.ZipFile, checkpoint: Checkpoint) -> tuple[set[int], int]:
    """Check each event's payload and its place in the tree; their positions, and how many are redacted."""
    decoder = msgspec.json.Decoder(_Event)
    positions: set[int] = set()
    redacted = 0
    for place, line in _lines(archive, "events.jsonl"):
        event = decoder.decode(line)
        try:
            _check_event(event, checkpoint)
        except TlogError as error:
            raise ProofRefused(f"{place}: {error}") from None
        positions.add(event.position)
        redacted += event.salt is None
    return positions, redacted


def _check_event(event: _Event, checkpoint: Checkpoint) -> None:
    entry = Entry.decode(event.entry.encode())
    if entry.position != event.position:
        raise ProofRefused(f"an entry of position {entry.position} stands for {event.position}")
    if event.salt is not None:
        salt = decode_base64(event.salt, "salt")
        if len(salt) != SALT_BYTES:
            raise Malformed("salt", f"has {len(salt)} bytes, a salt has {SALT_BYTES}")
        if not entry.opens(salt, decode_base64(event.payload, "payload")):
            raise ProofRefused("the payload is not the one that the entry commits to")
    siblings = [decode_hash(sibling, "proof") for sibling in event.proof]
    verify_inclusion(
        leaf_hash(event.entry.encode()), event.position, checkpoint.size, siblings, checkpoint.root
    )


def _check_transfers(archive: zipfile.ZipFile, positions: set[int]) -> int:
    """Check that the events of each transfer's steps and evidence are there; how many transfers there are."""
    transfers = msgspec.json.Decoder(_Transfer)
    steps, evidence = msgspec.json.Decoder(list[_Step]), msgspec.json.Decoder(list[int])
    count = 0
    for place, line in _lines(archive, "transfers.jsonl"):
        transfer = transfers.decode(line)
        needed: set[Any] = {step.position for step in steps.decode(transfer.steps)}
        needed.update(evidence.decode(transfer.evidence))
        if not needed <= positions:
            raise ProofRefused(f"{place}: the event at position {min(needed - positions)} is missing")
        count += 1
    return count


def _lines(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[str, bytes]]:
    with archive.open(name) as file:
        number = 0
        while line := file.readline(LARGEST_LINE):
            number += 1
            yield f"{name}, line {number}", line
