from __future__ import annotations

import random
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.cli.traffic import Traffic
from service.errors import BadConfig, Tampered
from service.log import EventLog, NewEvent, Producer, sql
from service.log.checkpoints import Checkpoints, LogKeys, add_key, load_keys
from service.log.tree import Tree, entry_of_row
from service.log.verify import Kind, Report, verify_log, whole
from service.postgres import Database, connect_arguments
from service.tlog.checkpoint import Checkpoint
from service.tlog.evidence import Evidence
from service.tlog.merkle import leaf_hashes
from service.tlog.note import Ed25519Signer, Ed25519Verifier, Note
from service.tlog.proofs import verify_consistency

SIZE = 700  # two full tiles and a part of a third
SIGNED = (300, 512, SIZE)


class Vandal:
    """A superuser whose edits no trigger stops; `undo` puts everything back."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.connection = connection

    async def edit(self, *statements: str) -> None:
        await self.connection.execute("BEGIN; SET LOCAL session_replication_role = replica")
        for statement in statements:
            await self.connection.execute(statement)
        await self.connection.execute("COMMIT")

    async def keep(self) -> None:
        for table in ("event_log", "log_tile", "log_head", "log_checkpoint"):
            await self.connection.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")

    async def undo(self) -> None:
        await self.edit(
            *(
                f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}"
                for table in ("event_log", "log_tile", "log_head", "log_checkpoint")
            )
        )

    async def has_changed_something(self) -> bool:
        """Some edits undo one another: an event inserted, then the same one deleted."""
        return bool(
            await self.connection.fetchval(
                "SELECT EXISTS ((TABLE event_log EXCEPT TABLE kept_event_log) UNION ALL "
                "(TABLE kept_event_log EXCEPT TABLE event_log))"
            )
        )

    async def recompute(self, *, head: bool) -> None:
        """Make tiles, and maybe the head, from the rows, as the log itself would."""
        rows = await self.connection.fetch(
            "SELECT position, recorded_at, event_id, stream, kind, commitment "
            "FROM event_log ORDER BY position"
        )
        tree, tiles = Tree().grow(leaf_hashes(map(entry_of_row, rows)))
        statements = ["DELETE FROM log_tile"]
        statements += [
            "INSERT INTO log_tile (level, index, root, hashes) "
            f"VALUES ({tile.level}, {tile.number}, '\\x{tile.root.hex()}', '\\x{tile.hashes.hex()}')"
            for tile in tiles
        ]
        if head:
            statements.append(
                f"UPDATE log_head SET tree = '\\x{tree.frontier.hashes.hex()}', next_position = {tree.size}"
            )
        await self.edit(*statements)


@pytest.fixture
def keys(tmp_path: Path) -> LogKeys:
    return load_keys(tmp_path)


@pytest.fixture
async def vandal(log: EventLog, database: Database, keys: LogKeys) -> AsyncIterator[Vandal]:
    """A log of SIZE events with checkpoints, and somebody who may change it."""
    traffic = Traffic(seed=3, sessions=10)
    for size in SIGNED:
        await log.append(list(traffic.events(size - await log.next_position())))
        await Checkpoints(database, keys).sign()
    connection = await asyncpg.connect(**connect_arguments(database.url))
    vandal = Vandal(connection)
    await vandal.keep()
    yield vandal
    await connection.close()


async def checked(database: Database, keys: LogKeys, **more: object) -> Report:
    return await verify_log(database, origin=keys.origin, trusted=keys.verifiers, **more)  # type: ignore[arg-type]


async def test_an_untouched_log_is_intact(vandal: Vandal, database: Database, keys: LogKeys) -> None:
    report = await checked(database, keys)
    assert report.differences == []
    assert (report.size, report.checkpoints) == (SIZE, 3)
    assert report.root == Checkpoint.parse((await Checkpoints(database, keys).latest()).text).root


async def test_a_log_that_grows_meanwhile_is_intact(
    vandal: Vandal, database: Database, keys: LogKeys, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_chunks, fetchrow = whole.check_chunks, asyncpg.pool.PoolConnectionProxy.fetchrow
    traffic = Traffic(seed=4, sessions=10)

    async def grow() -> None:
        await log.append(list(traffic.events(600)))
        await Checkpoints(database, keys).sign()

    async def slow_check(*arguments: Any, **more: Any) -> Any:
        chunks = await check_chunks(*arguments, **more)
        await grow()
        return chunks

    async def slow_fetch(connection: Any, statement: str, *arguments: Any) -> Any:
        row = await fetchrow(connection, statement, *arguments)
        if statement == sql.HEAD_AND_BEYOND:
            await grow()
        return row

    monkeypatch.setattr(whole, "check_chunks", slow_check)
    monkeypatch.setattr(asyncpg.pool.PoolConnectionProxy, "fetchrow", slow_fetch)
    report = await checked(database, keys)
    assert report.differences == []
    assert report.size == SIZE


async def test_a_tile_of_events_that_are_not_there_is_told(
    vandal: Vandal, database: Database, keys: LogKeys
) -> None:
    await vandal.edit("INSERT INTO log_tile SELECT level, 99, root, hashes FROM log_tile LIMIT 1")
    report = await checked(database, keys)
    assert [one.kind for one in report.differences] == [Kind.TILE]


SWAP = """
UPDATE event_log SET position = 4000000 WHERE position = {a};
UPDATE event_log SET position = {a} WHERE position = {b};
UPDATE event_log SET position = {b} WHERE position = 4000000
"""
SHIFT_DOWN = """
DELETE FROM event_log WHERE position = {a};
CREATE TEMP TABLE later AS SELECT * FROM event_log WHERE position > {a};
DELETE FROM event_log WHERE position > {a};
UPDATE later SET position = position - 1;
INSERT INTO event_log SELECT * FROM later; DROP TABLE later
"""
SHIFT_UP = """
CREATE TEMP TABLE later AS SELECT * FROM event_log WHERE position >= {a};
DELETE FROM event_log WHERE position >= {a};
INSERT INTO event_log SELECT position, recorded_at, gen_random_uuid(), codec, stream, kind, salt, commitment,
    payload FROM later WHERE position = {a};
UPDATE later SET position = position + 1;
INSERT INTO event_log SELECT * FROM later; DROP TABLE later
"""
PAYLOAD = "UPDATE event_log SET payload = 'forged', codec = 0 WHERE position = {a}"
COMMITMENT = """
UPDATE event_log SET payload = 'forged', codec = 0, commitment = sha256(coalesce(salt, '') || 'forged'::bytea)
WHERE position = {a}
"""
BEYOND = f"""
INSERT INTO event_log SELECT {SIZE}, recorded_at, gen_random_uuid(), codec, stream, kind, salt, commitment,
    payload FROM event_log WHERE position = 5
"""
CUT = "DELETE FROM event_log WHERE position >= {a}"

EDITS = {
    "payload": (PAYLOAD, Kind.PAYLOAD),
    "a byte of the payload": (
        "UPDATE event_log SET payload = set_byte(payload, 5, get_byte(payload, 5) # 1) WHERE position = {a}",
        Kind.PAYLOAD,
    ),
    "salt": ("UPDATE event_log SET salt = sha256('x')::bytea WHERE position = {a}", Kind.PAYLOAD),
    "salt taken away": ("UPDATE event_log SET salt = NULL WHERE position = {a}", Kind.PAYLOAD),
    "codec": ("UPDATE event_log SET codec = 0 WHERE position = {a}", Kind.PAYLOAD),
    "unknown codec": ("UPDATE event_log SET codec = 9 WHERE position = {a}", Kind.PAYLOAD),
    "payload and commitment": (COMMITMENT, Kind.ENVELOPE),
    "stream": ("UPDATE event_log SET stream = stream || 'x' WHERE position = {a}", Kind.ENVELOPE),
    "kind": ("UPDATE event_log SET kind = 'Other' WHERE position = {a}", Kind.ENVELOPE),
    "id": ("UPDATE event_log SET event_id = gen_random_uuid() WHERE position = {a}", Kind.ENVELOPE),
    "time": (
        "UPDATE event_log SET recorded_at = recorded_at + interval '1 us' WHERE position = {a}",
        Kind.ENVELOPE,
    ),
    "deleted": ("DELETE FROM event_log WHERE position = {a}", Kind.MISSING),
    "deleted and closed up": (SHIFT_DOWN, Kind.MISSING),
    "inserted": (SHIFT_UP, Kind.INSERTED),
    "swapped": (SWAP, Kind.ORDER),
    "cut off": (CUT, Kind.TAIL),
}


@pytest.mark.parametrize("name", EDITS)
async def test_each_kind_of_edit_is_named_and_placed(
    vandal: Vandal, database: Database, keys: LogKeys, name: str
) -> None:
    statement, kind = EDITS[name]
    await vandal.edit(statement.format(a=100, b=400))
    report = await checked(database, keys)
    assert report.first is not None
    assert (report.first.position, report.first.kind) == (100, kind)


async def test_edits_beside_the_rows_are_named(vandal: Vandal, database: Database, keys: LogKeys) -> None:
    for statement, kind in (
        ("UPDATE log_tile SET hashes = set_byte(hashes, 40, 1) WHERE index = 1", Kind.TILE),
        ("UPDATE log_tile SET root = sha256('x') WHERE index = 1", Kind.TILE),
        ("DELETE FROM log_tile WHERE index = 0", Kind.TILE),
        ("UPDATE log_head SET tree = set_byte(tree, 3, 77)", Kind.HEAD),
        ("UPDATE log_checkpoint SET root = sha256('x') WHERE size = 300", Kind.CHECKPOINT),
        ("UPDATE log_checkpoint SET note = replace(note, E'\\n300\\n', E'\\n301\\n')", Kind.CHECKPOINT),
        ("UPDATE log_head SET next_position = 600", Kind.ROLLED_BACK),
        (BEYOND, Kind.INSERTED),
    ):  # fmt: skip
        await vandal.edit(statement)
        report = await checked(database, keys)
        assert kind in {one.kind for one in report.differences}, statement
        await vandal.undo()
    assert (await checked(database, keys)).intact


@pytest.mark.parametrize("rounds", [40, pytest.param(600, marks=pytest.mark.long)])
async def test_every_random_edit_is_found(
    vandal: Vandal, database: Database, keys: LogKeys, rounds: int
) -> None:
    """Alone, in combination, and with tiles or the whole tree made anew by somebody without the key."""
    draw = random.Random(rounds)
    edited = 0
    while edited < rounds:
        names = draw.sample(list(EDITS), draw.choice((1, 1, 2, 3)))
        places = draw.sample(range(1, SIZE), 2)
        await vandal.edit(*(EDITS[name][0].format(a=places[0], b=places[1]) for name in names))
        if draw.random() < 0.5:
            try:
                await vandal.recompute(head=draw.random() < 0.5)
            except asyncpg.PostgresError:
                await vandal.connection.execute("ROLLBACK")
        if await vandal.has_changed_something():
            edited += 1
            report = await checked(database, keys)
            assert not report.intact, (names, places)
        await vandal.undo()
    assert (await checked(database, keys)).intact


async def test_without_the_key_a_whole_new_history_is_caught_by_the_kept_checkpoint(
    vandal: Vandal, database: Database, keys: LogKeys
) -> None:
    await vandal.edit(COMMITMENT.format(a=350))
    await vandal.recompute(head=True)
    report = await checked(database, keys)
    assert {one.kind for one in report.differences} == {Kind.REWRITTEN}
    assert report.first is not None
    assert (report.first.position, report.first.what) == (
        300,
        "between positions 300 and 511: not what was signed",
    )


async def test_with_the_key_only_a_checkpoint_kept_elsewhere_tells(
    vandal: Vandal, database: Database, keys: LogKeys
) -> None:
    elsewhere = await Checkpoints(database, keys).latest()
    await vandal.edit(COMMITMENT.format(a=350), "DELETE FROM log_checkpoint")
    await vandal.recompute(head=True)
    await Checkpoints(database, keys).sign()
    assert (await checked(database, keys)).intact  # whoever holds the key can do this: docs/verify.md says so
    assert not (await checked(database, keys, against=[elsewhere])).intact


async def test_a_checkpoint_signed_by_another_key_counts_for_nothing(
    vandal: Vandal, database: Database, keys: LogKeys, tmp_path: Path
) -> None:
    other = add_key(tmp_path / "other.key", keys.origin)
    note = Checkpoint(keys.origin, 1, bytes(32)).sign([Ed25519Signer(other)])
    report = await checked(database, keys, against=[note])
    assert {one.kind for one in report.differences} == {Kind.CHECKPOINT}


async def test_nothing_is_signed_or_appended_after_a_tail_that_was_changed(
    vandal: Vandal, log: EventLog, database: Database, keys: LogKeys
) -> None:
    await vandal.edit("UPDATE log_head SET tree = set_byte(tree, 3, 77)")
    with pytest.raises(Tampered):
        await log.append([NewEvent(Producer.new().key, "call-1", "K", b"")])
    with pytest.raises(Tampered):
        await Checkpoints(database, keys).sign()


async def test_a_proof_convinces_a_stranger_and_a_forged_one_does_not(
    vandal: Vandal, database: Database, keys: LogKeys, log: EventLog
) -> None:
    checkpoints = Checkpoints(database, keys)
    for position in (0, 255, 256, SIZE - 1):
        data = (await checkpoints.prove(position)).encode()
        verdict = Evidence.decode(data).verify(keys.origin, keys.verifiers)
        assert (verdict.entry.position, verdict.payload_proved) == (position, True)
        [event] = await log.at([position])
        assert Evidence.decode(data).payload == event.payload
    await log.append([NewEvent(Producer.new().key, "call-1", "K", b"new")])
    assert (await checkpoints.prove(SIZE)).verify(keys.origin, keys.verifiers).checkpoint.size == SIZE + 1


async def test_checkpoints_extend_one_another(vandal: Vandal, database: Database, keys: LogKeys) -> None:
    notes = await database.pool.fetch("SELECT note FROM log_checkpoint ORDER BY size")
    states = [Checkpoint.parse(Note.decode(row["note"].encode()).text) for row in notes]
    for old, new in pairwise(states):
        proof = await Checkpoints(database, keys).consistency(old.size, new.size)
        verify_consistency(old.size, old.root, new.size, new.root, proof)


async def test_a_second_key_signs_beside_the_first(
    vandal: Vandal, database: Database, keys: LogKeys, tmp_path: Path
) -> None:
    add_key(tmp_path / "log.key", keys.origin)
    both = load_keys(tmp_path)
    note = await Checkpoints(database, both).sign()
    assert len(note.verify(both.verifiers)) == 2
    assert len(note.verify([Ed25519Verifier(key) for key in keys.trusted])) == 1
    (tmp_path / "log.key").write_text(both.signers[1].encode() + "\n")
    only_new = load_keys(tmp_path)
    assert (await checked(database, only_new)).intact  # checkpoints of the old key are still believed
    (tmp_path / "log.key").chmod(0o644)
    with pytest.raises(BadConfig, match="others"):
        load_keys(tmp_path)
