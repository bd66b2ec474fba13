"""Which process records which agent: never two at once.

Each process holds one advisory lock, whose number is drawn at its start, and writes that number beside the
agents it takes. An agent is free if nobody's number stands there, or one whose lock nobody holds: Postgres
lets go of the lock when the process dies, so another takes over within about a second. One lock per process
rather than one per agent, since the lock table of a Postgres with default settings has room for some six
thousand, for everybody.

When the lock's connection breaks, `held` turns false at once: recorders go on polling, but append and
acknowledge nothing until the lock is back and the agents have been found to be still ours. So whoever has
taken over meanwhile finds all that was not acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from service.errors import DatabaseUnavailable
from service.log import Statement
from service.loops import Loop
from service.postgres import Database, database_errors
from service.recorder.kept import Kept

logger = logging.getLogger(__name__)

ROUND_S = 1.0  # how often free agents are looked for
BEAT_ROUNDS = 10  # of each agent it is written down in one round of so many that it is alive
ANSWER_S = 5.0  # a connection that does not answer for so long is dead

TRY_LOCK = "SELECT pg_try_advisory_lock($1)"

ENROL = "INSERT INTO recorder_session (agent) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"

CLAIM = """
WITH free AS (
    SELECT * FROM recorder_session
    WHERE agent = ANY($1::text[])
        AND (owner IS NULL OR owner = $2 OR owner NOT IN (SELECT number FROM advisory_lock_held))
    FOR UPDATE SKIP LOCKED
)
UPDATE recorder_session AS s SET owner = $2, idle = false FROM free WHERE s.agent = free.agent
RETURNING free.agent, free.session, free.delivered, free.acked, free.alive_at, free.idle, free.secret
"""
"""Take what is free, and what is ours already. `idle` is believed once (see `ResumeState.idle`)."""

STILL_OURS = """
UPDATE recorder_session SET idle = false WHERE agent = ANY($1::text[]) AND owner = $2 RETURNING agent
"""
"""Whoever takes an agent writes his number; where ours still stands, nobody has had it meanwhile."""

RELEASE = "UPDATE recorder_session SET owner = NULL WHERE agent = ANY($1::text[]) AND owner = $2"
FORGET = "DELETE FROM recorder_session WHERE agent = $1 AND owner = $2 AND session IS NULL"

BEAT = """
WITH told AS (
    SELECT * FROM unnest($2::text[], $3::uuid[], $4::timestamptz[], $5::text[], $6::text[])
        AS t (agent, session, alive_at, status, reason)
), ours AS (
    SELECT s.agent FROM recorder_session s JOIN told USING (agent)
    WHERE s.owner = $1 FOR UPDATE OF s SKIP LOCKED
)
UPDATE recorder_session AS s SET status = told.status, reason = told.reason, updated_at = clock_timestamp(),
    alive_at = CASE s.session WHEN told.session THEN greatest(s.alive_at, told.alive_at) ELSE s.alive_at END
FROM told, ours WHERE s.agent = ours.agent AND told.agent = ours.agent
"""
"""Never waits for a row, lest it and an append wait for each other; who is appending is alive anyhow."""

LIST = "SELECT * FROM recorder_session_now ORDER BY agent"

UNATTENDED = "unattended"


class Beat(NamedTuple):
    """What an agent's recorder tells of itself: up to when nothing was missed, if that is certain."""

    agent: str
    session: UUID | None
    alive_at: datetime | None
    status: str
    reason: str


class Ownership:
    """This process's right to record agents.

    `wanted` says which agents it would record; `take` is called with each one it gets, `drop` with each one
    that another process has taken; `beats` tells what is to be written down now and then.
    """

    def __init__(
        self,
        database: Database,
        *,
        wanted: Callable[[], Collection[str]],
        take: Callable[[str, Kept], None],
        drop: Callable[[str], Awaitable[None]],
        beats: Callable[[], Sequence[Callable[[], Beat]]],
    ) -> None:
        self.number = secrets.randbits(62)
        self.tenure: int | None = None
        """The number of the present hold; None while the lock is away."""
        self.loop = Loop("recorder ownership", self._run)
        self._database = database
        self._wanted = wanted
        self._take = take
        self._drop = drop
        self._beats = beats
        self._mine: set[str] = set()
        self._tenures = itertools.count()
        self._stir = asyncio.Event()

    @property
    def held(self) -> bool:
        return self.tenure is not None

    def stir(self) -> None:
        """Look at once: other agents are wanted."""
        self._stir.set()

    async def release(self, agents: Sequence[str]) -> None:
        """Let others have these agents; what is left of a session is for them."""
        self._mine.difference_update(agents)
        with database_errors():
            await self._database.pool.execute(RELEASE, agents, self.number, timeout=ANSWER_S)

    async def forget(self, agent: str) -> None:
        """The agent is no longer recorded; his row goes, unless a session of his is left."""
        with database_errors():
            await self._database.pool.execute(FORGET, agent, self.number, timeout=ANSWER_S)

    async def execute(self, statement: Statement) -> None:
        """Change a row of ours without an event.

        Raises:
            DatabaseUnavailable: it cannot be done, or the row is not ours any more.

        """
        with database_errors():
            pool = self._database.pool
            done = await pool.execute(*statement.alone(), timeout=ANSWER_S)
        if done == "UPDATE 0":
            raise DatabaseUnavailable("another process has taken the agent")

    async def beat(self, turn: int | None = None) -> None:
        """Write down what is alive: a tenth of the agents, lest appends wait; without `turn` all."""
        beats = self._beats()
        if turn is not None:
            beats = beats[turn % BEAT_ROUNDS :: BEAT_ROUNDS]
        if beats:
            columns = map(list, zip(*(beat() for beat in beats), strict=True))
            with database_errors():
                await self._database.pool.execute(BEAT, self.number, *columns)

    async def _run(self, loop: Loop) -> None:
        with database_errors():
            connection = await self._database.connect()
            try:
                connection.add_termination_listener(self._lost)
                if not await connection.fetchval(TRY_LOCK, self.number, timeout=ANSWER_S):
                    raise DatabaseUnavailable("the connection that holds our lock has not ended yet")
                await self._take_stock(connection)
                self.tenure = next(self._tenures)
                await self._hold(connection, loop)
            finally:
                self.tenure = None
                connection.terminate()

    def _lost(self, *_: object) -> None:
        self.tenure = None
        self._stir.set()

    async def _take_stock(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """After the lock was away: see which of our agents are still ours.

        Those that another process had, even if it has ended since, are let go: what we know of their
        sessions is out of date. If they are free, they are taken again, with what it has left.
        """
        if not self._mine:
            return
        rows = await connection.fetch(STILL_OURS, list(self._mine), self.number, timeout=ANSWER_S)
        still = {row["agent"] for row in rows}
        for agent in self._mine - still:
            logger.warning("another process has taken the agent", extra={"agent": agent})
            self._mine.discard(agent)
            await self._drop(agent)

    async def _hold(self, connection: asyncpg.Connection[asyncpg.Record], loop: Loop) -> None:
        clock = asyncio.get_running_loop().time
        next_beat, turn = clock() + ROUND_S, 0
        enrolled: set[str] = set()
        while True:
            self._stir.clear()
            missing = [agent for agent in self._wanted() if agent not in self._mine]
            if new := [agent for agent in missing if agent not in enrolled]:
                await connection.execute(ENROL, new, timeout=ANSWER_S)
                enrolled.update(new)
            if missing:
                await self._claim(connection, missing)
            else:
                await connection.fetchval("SELECT 1", timeout=ANSWER_S)
            loop.beat()
            if clock() >= next_beat:
                next_beat, turn = clock() + ROUND_S, turn + 1
                await self.beat(turn)
            try:
                async with asyncio.timeout(ROUND_S):
                    await self._stir.wait()
            except TimeoutError:
                continue
            if connection.is_closed():
                raise DatabaseUnavailable("the connection that holds our lock has ended")

    async def _claim(self, connection: asyncpg.Connection[asyncpg.Record], agents: Sequence[str]) -> None:
        for row in await connection.fetch(CLAIM, agents, self.number, timeout=ANSWER_S):
            self._mine.add(row["agent"])
            self._take(
                row["agent"],
                Kept(
                    row["session"],
                    row["delivered"],
                    row["acked"],
                    row["alive_at"],
                    row["idle"],
                    row["secret"],
                ),
            )


async def list_sessions(database: Database, status: str | None = None) -> list[dict[str, Any]]:
    """Every agent's session, whichever process records it, by agent; those of one status if it is given.

    `status` is a `Status`, or "unattended" where no living process records the agent.
    """
    with database_errors():
        rows = [dict(row) for row in await database.pool.fetch(LIST)]
    for row in rows:
        if not row.pop("attended"):
            row["status"] = UNATTENDED
    return [row for row in rows if status in {None, row["status"]}]
