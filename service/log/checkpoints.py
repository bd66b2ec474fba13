"""Signed checkpoints: the log's word on its size and root, kept in the database before anybody sees it.

The key is a file of the data directory, made at first use, readable for its owner only. It may hold several
keys, one a line: all of them sign, so that a new key can be made known while the old one still counts; delete
the old line to end that. Beside it stands the list of public keys (vkeys), which may be given to anyone.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from service.errors import BadConfig, Malformed, NotFound, Tampered
from service.log import sql
from service.log.codec import Codecs
from service.log.tiles import plan_hashes, read_bundle
from service.loops import Loop
from service.postgres import Database, database_errors
from service.tlog.checkpoint import Checkpoint, verify_checkpoint
from service.tlog.evidence import Evidence
from service.tlog.keys import SignatureType, SignerKey, VerifierKey
from service.tlog.merkle import Frontier
from service.tlog.note import Ed25519Signer, Ed25519Verifier, Note
from service.tlog.plans import consistency_plan, inclusion_plan, root_plan
from service.tlog.proof_file import TlogProof
from service.tlog.tiles import TILE_WIDTH, BundleId, decode_bundle

KEY_FILE = "log.key"
PUBLIC_FILE = "log.pub"


@dataclass(frozen=True)
class LogKeys:
    """The keys that sign, and the public keys that are trusted: those, and earlier ones."""

    signers: tuple[SignerKey, ...]
    trusted: tuple[VerifierKey, ...]

    @property
    def origin(self) -> str:
        return self.signers[-1].name

    @property
    def verifiers(self) -> list[Ed25519Verifier]:
        return [Ed25519Verifier(key) for key in self.trusted]


def load_keys(data_dir: Path, key_file: Path | None = None) -> LogKeys:
    """The log's keys, from `key_file` or the data directory; made there at first use, mode 0600.

    Raises:
        BadConfig: the file cannot be read, is open to others, or holds something else.

    """
    path = key_file or data_dir / KEY_FILE
    if key_file is None and not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        add_key(path, f"calltrail.log/{secrets.token_hex(4)}")
    try:
        if path.stat().st_mode & 0o077:
            raise BadConfig(str(path), "can be read by others than its owner", "chmod 600 it")
        signers = tuple(SignerKey.decode(line) for line in path.read_text().split())
    except (OSError, UnicodeDecodeError, Malformed) as error:
        raise BadConfig(str(path), f"is no file of signer keys ({error})", "Give another path") from error
    if not signers:
        raise BadConfig(str(path), "holds no key", "Delete it, and a new key is made")
    trusted = dict.fromkeys([*read_public(data_dir / PUBLIC_FILE), *(key.verifier_key for key in signers)])
    (data_dir / PUBLIC_FILE).write_text("".join(f"{key.encode()}\n" for key in trusted))
    return LogKeys(signers, tuple(trusted))


def add_key(path: Path, origin: str) -> SignerKey:
    """Draw a key and add it to the file at `path`."""
    key = SignerKey(origin, SignatureType.ED25519, secrets.token_bytes(32))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{key.encode()}\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def read_public(path: Path) -> list[VerifierKey]:
    """The vkeys in a file, one a line; none if there is no such file."""
    try:
        return [VerifierKey.decode(line) for line in path.read_text().split()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, Malformed) as error:
        raise BadConfig(str(path), f"is no file of public keys ({error})", "Give another path") from error


class Checkpoints:
    """Signs the log's checkpoints with `keys`, on demand and, while `loop` runs, every `period_s`."""

    def __init__(self, database: Database, keys: LogKeys, *, period_s: float = 60.0) -> None:
        self.keys = keys
        self.loop = Loop("checkpoints", self._run)
        self._database = database
        self._period_s = period_s

    async def _run(self, loop: Loop) -> None:
        while True:
            await self.sign()
            loop.beat()
            await asyncio.sleep(self._period_s)

    async def latest(self) -> Note:
        """The last checkpoint; the first one is signed when it is asked for."""
        with database_errors():
            note = await self._database.pool.fetchval(sql.LAST_CHECKPOINT)
        return await self.sign() if note is None else Note.decode(note.encode())

    async def sign(self) -> Note:
        """Sign the log as it stands, keep the checkpoint and return it; the last one if nothing is new.

        Raises:
            Tampered: the tree does not extend the last checkpoint. Nothing is signed then.

        """
        with database_errors():
            async with self._database.pool.acquire() as connection, connection.transaction():
                head = await connection.fetchrow(sql.HEAD_TREE)
                assert head is not None
                size = head["next_position"]
                try:
                    root = Frontier(size, head["tree"]).root()
                except Malformed as error:
                    raise Tampered(f"the log's head is broken: {error}") from error
                last = await connection.fetchval(sql.LAST_CHECKPOINT)
                if last is not None:
                    note = Note.decode(last.encode())
                    before = verify_checkpoint(note, self.keys.origin, self.keys.verifiers)
                    await self._check_extends(connection, before, size, root)
                    if before.size == size and len(note.signatures) == len(self.keys.signers):
                        return note
                note = Checkpoint(self.keys.origin, size, root).sign(map(Ed25519Signer, self.keys.signers))
                await connection.execute(sql.KEEP_CHECKPOINT, size, root, note.encode().decode())
        return note

    async def _check_extends(
        self,
        connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record],
        before: Checkpoint,
        size: int,
        root: bytes,
    ) -> None:
        if size < before.size:
            raise Tampered(f"the log has {size} events, fewer than the {before.size} that were signed")
        for what, of_size, expected in (("signed", before.size, before.root), ("in the head", size, root)):
            [found] = await plan_hashes(connection, root_plan(of_size))
            if found != expected:
                raise Tampered(f"the tree's root at {of_size} events is not the one {what}")

    async def prove(self, position: int) -> Evidence:
        """The evidence for one event, under the last checkpoint that covers it.

        Raises:
            NotFound: there is no such position.

        """
        note = await self.latest()
        checkpoint = Checkpoint.parse(note.text)
        if checkpoint.size <= position:
            note = await self.sign()
            checkpoint = Checkpoint.parse(note.text)
        if not 0 <= position < checkpoint.size:
            raise NotFound(f"there is no position {position}; the log ends at {checkpoint.size - 1}")
        with database_errors():
            async with self._database.pool.acquire() as connection:
                siblings = await plan_hashes(connection, inclusion_plan(position, checkpoint.size))
                [row] = await connection.fetch(sql.READ_POSITIONS, [position])
                codecs = Codecs()
                await codecs.load(connection)
                index, offset = divmod(position, TILE_WIDTH)
                entry = decode_bundle(await read_bundle(connection, BundleId(index, offset + 1)))[offset]
        proof = TlogProof(position, tuple(siblings), note)
        return Evidence(proof, entry, codecs.decode(row["codec"], row["payload"]), row["salt"])

    async def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """The consistency proof between two sizes of the tree.

        Raises:
            OutsideTree: the log has never had these sizes.

        """
        with database_errors():
            async with self._database.pool.acquire() as connection:
                return await plan_hashes(connection, consistency_plan(old_size, new_size))
