"""Judging a file that somebody holds against this log: a bundle, evidence, a proof, or a checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from tempfile import NamedTemporaryFile

from fastapi import Request

from service.api.services import Services
from service.audit.verify import verify_bundle
from service.errors import BadInput, OutsideTree, ProofRefused, TlogError
from service.events import readable
from service.log.checkpoints import LogKeys, load_keys
from service.log.tiles import plan_hashes, read_bundle
from service.postgres import database_errors
from service.tlog.checkpoint import verify_checkpoint
from service.tlog.entry import Entry
from service.tlog.evidence import Evidence
from service.tlog.merkle import leaf_hash
from service.tlog.note import Note
from service.tlog.plans import root_plan
from service.tlog.proof_file import TlogProof
from service.tlog.tiles import TILE_WIDTH, BundleId, decode_bundle
from service.web.frame import read_body
from service.web.words import document_text

LARGEST_FILE = 64 * 1024 * 1024
LOOKED_AT = 1 << 20


@dataclass(frozen=True)
class Verdict:
    """What a file is, whether it proves what it claims, and what it establishes or why it does not."""

    what: str
    proved: bool
    why: str
    facts: tuple[tuple[str, object], ...] = ()
    payload: str | None = None


async def judge(data: bytes, services: Services) -> Verdict:
    """Judge a file by what it says it is.

    Raises:
        BadInput: it is none of the files that can be judged.

    """
    for mark, what, judged in READERS:
        if mark in data[:LOOKED_AT]:
            try:
                return await judged(data, services, load_keys(services.settings.data_dir))
            except TlogError as error:
                return Verdict(what, proved=False, why=str(error))
    raise BadInput(
        "file",
        "is no bundle, no evidence, no proof and no checkpoint",
        "Upload what calltrail export, calltrail prove or calltrail checkpoint wrote",
    )


async def judge_evidence(data: bytes, _: Services, keys: LogKeys) -> Verdict:
    """Evidence stands for itself: nothing is read from the database."""
    evidence = Evidence.decode(data)
    verdict = evidence.verify(keys.origin, keys.verifiers)
    whole = verdict.payload_proved and evidence.payload is not None
    return Verdict(
        "evidence of one event",
        proved=True,
        why="The event is in the log as it stands here, and so is its payload."
        if whole
        else "The event is in the log; its payload was redacted, and nothing is proved about it.",
        facts=(*facts_of(verdict.entry), ("Size of the signed tree", verdict.checkpoint.size)),
        payload=document_text(readable(evidence.payload)) if whole and evidence.payload else None,
    )


async def judge_proof(data: bytes, services: Services, keys: LogKeys) -> Verdict:
    """A proof names a leaf only by its index: what this log holds there must fit it."""
    proof = TlogProof.decode(data)
    index, offset = divmod(proof.index, TILE_WIDTH)
    if proof.index >= await services.log.next_position():
        raise OutsideTree(f"it is about position {proof.index}, which this log does not have")
    with database_errors():
        async with services.database.pool.acquire() as connection:
            entry = decode_bundle(await read_bundle(connection, BundleId(index, offset + 1)))[offset]
    proven = proof.verify(leaf_hash(entry), keys.origin, keys.verifiers)
    return Verdict(
        "a proof",
        proved=True,
        why="The event that stands at its position in this log is in the tree that was signed.",
        facts=(*facts_of(Entry.decode(entry)), ("Size of the signed tree", proven.checkpoint.size)),
    )


async def judge_checkpoint(data: bytes, services: Services, keys: LogKeys) -> Verdict:
    """A checkpoint kept elsewhere must have been signed by this log, and this log must still begin so."""
    checkpoint = verify_checkpoint(Note.decode(data), keys.origin, keys.verifiers)
    if checkpoint.size > await services.log.next_position():
        raise OutsideTree(f"it was signed over {checkpoint.size} events, and this log has fewer: cut off")
    with database_errors():
        async with services.database.pool.acquire() as connection:
            [root] = await plan_hashes(connection, root_plan(checkpoint.size))
    if root != checkpoint.root:
        raise ProofRefused(f"the first {checkpoint.size} events of this log are not those that it signed")
    return Verdict(
        "a checkpoint",
        proved=True,
        why="This log signed it, and its tree still begins with the one that was signed.",
        facts=(("Events", checkpoint.size), ("Root", checkpoint.root.hex())),
    )


async def judge_bundle(data: bytes, _: Services, keys: LogKeys) -> Verdict:
    """An audit's bundle stands for itself too; it is read from a file."""
    with NamedTemporaryFile(suffix=".zip") as file:
        file.write(data)
        file.flush()
        bundle = await asyncio.to_thread(verify_bundle, Path(file.name), keys.verifiers)
    return Verdict(
        "an audit's bundle",
        proved=True,
        why="Everything in it is as this log gave it out.",
        facts=(
            ("Transfers", bundle.transfers),
            ("Events", bundle.events),
            ("Redacted", bundle.redacted),
            ("Asked for", bundle.asked),
            ("By", bundle.by),
            ("Made", bundle.created),
            ("Size of the signed tree", bundle.checkpoint.size),
        ),
    )


def facts_of(entry: Entry) -> tuple[tuple[str, object], ...]:
    return (
        ("Position", entry.position),
        ("Recorded at", entry.recorded_at),
        ("Kind", entry.kind),
        ("Stream", entry.stream),
    )


Reader = Callable[[bytes, Services, LogKeys], Awaitable[Verdict]]
READERS: tuple[tuple[bytes, str, Reader], ...] = (
    (b"PK\x03\x04", "an audit's bundle", judge_bundle),
    (b'"calltrail-evidence@', "evidence of one event", judge_evidence),
    (b"c2sp.org/tlog-proof@", "a proof", judge_proof),
    ("\n\n\N{EM DASH} ".encode(), "a checkpoint", judge_checkpoint),
)
"""What each kind of file has near its beginning; the first that fits counts."""


async def uploaded_file(request: Request) -> bytes:
    """The content of the form's one file field.

    Raises:
        BadInput: the form has none, or it is too large.

    """
    body = await read_body(request, LARGEST_FILE)
    form = Message()
    form["Content-Type"] = request.headers.get("content-type", "")
    boundary = form.get_boundary()
    for part in body.split(b"--" + boundary.encode()) if boundary else ():
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head and (content := content.removesuffix(b"\r\n")):
            return content
    raise BadInput("file", "is missing", "Choose a file first")
