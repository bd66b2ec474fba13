"""The CometD sessions that pass through the tap, and how their events are numbered.

The recorder's recipe, seen from beside: with the acknowledgement extension, a connect that acknowledges batch
A is answered with everything after A, so the first event of the answer has the number at which batch A
ended. It is enough to remember where those batches ended that brought events: the others ended where the
one before them did. An event that the client did not acknowledge comes again under the same number, and so
under the same id, which the log recognises.

A session is kept in memory by the process that saw its last answer, and in `tap_session`, changed in the
transaction of its events: another process, after a crash or beside a draining one, takes it up from there.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from service.log import NewEvent, Producer, Statement
from service.postgres import Database, database_errors

PATIENCE_S = 60.0
"""How long a session may be without an answer where the server's advice does not say (its `timeout` and
`maxInterval`; CometD's defaults are 30 s and 10 s)."""
GRACE_S = 10.0  # on top of that, for networks
MOST_FACTS = 20  # that wait in one session for the log

COLUMNS = """client, owner, session, agent, ack, channels, opened_at, opened, delivered, base, batches, ends,
    batch, alive_at, patience_s"""

SAVE = f"""
INSERT INTO tap_session ({COLUMNS})
SELECT DISTINCT ON (client) decode(client, 'base64'), owner, session, agent, ack, channels, opened_at, opened,
    delivered, base, batches, ends, batch, alive_at, patience_s
FROM ROWS FROM (jsonb_to_recordset($1) AS (client text, owner bigint, session uuid, agent text, ack boolean,
    channels text[], opened_at timestamptz, opened boolean, delivered bigint, base bigint, batches bigint[],
    ends bigint[], batch bigint, alive_at timestamptz, patience_s float8)) WITH ORDINALITY AS saved
ORDER BY client, ordinality DESC
ON CONFLICT (client) DO UPDATE SET owner = excluded.owner, session = excluded.session,
    agent = excluded.agent, ack = excluded.ack, channels = excluded.channels,
    opened_at = excluded.opened_at, opened = excluded.opened, delivered = excluded.delivered,
    base = excluded.base, batches = excluded.batches, ends = excluded.ends, batch = excluded.batch,
    alive_at = excluded.alive_at, patience_s = excluded.patience_s, updated_at = clock_timestamp()
"""  # noqa: S608 a constant
"""Of requests of one session that are saved together the last one counts."""

FORGET = """
DELETE FROM tap_session AS t USING jsonb_to_recordset($1) AS over (client text)
WHERE t.client = decode(over.client, 'base64')
"""

TAKE = f"""
UPDATE tap_session SET owner = $2, updated_at = clock_timestamp() WHERE client = $1 RETURNING {COLUMNS}
"""  # noqa: S608 a constant

BEAT = """
UPDATE tap_session AS s SET batch = told.batch, alive_at = told.alive_at, updated_at = clock_timestamp()
FROM unnest($2::bytea[], $3::bigint[], $4::timestamptz[]) AS told (client, batch, alive_at)
WHERE s.client = told.client AND s.owner = $1
RETURNING s.client
"""

LAST_ALIVE = "SELECT max(alive_at) FROM tap_session WHERE agent = $1 AND client <> $2 AND opened"

ABANDONED = f"""
SELECT {COLUMNS} FROM tap_session
WHERE updated_at < clock_timestamp() - make_interval(secs => patience_s + $1) LIMIT 1000
"""  # noqa: S608 a constant


@dataclass(slots=True, eq=False)
class Session:
    """One CometD session of an application.

    `client`: stands for its client id. `numbers`: names it and makes its event ids. `alive_at`: up to when
    nothing is missing. `heard_at`: when a poll was last answered. `delivered`: how many events it has
    brought. `batch`: the newest that was answered. `doubt_since`: a poll failed on a server that does not
    redeliver, or something was passed on unrecorded. `facts` wait for the log. `resumed`: taken up from
    another process. `polls`: how many are being held. `on_its_way`: answers that are not durable yet.
    """

    client: bytes
    numbers: Producer
    agent: str | None
    ack: bool
    alive_at: datetime
    channels: list[str] = field(default_factory=list)
    opened_at: datetime | None = None
    opened: bool = False
    delivered: int = 0
    base: int = 0
    ends: list[tuple[int, int]] = field(default_factory=list)
    batch: int = 0
    patience_s: float = PATIENCE_S
    resumed: bool = False
    stored: bool = False
    polls: int = 0
    on_its_way: int = 0
    over: bool = False
    doubt_since: datetime | None = None
    doubt: str = ""
    facts: list[NewEvent] = field(default_factory=list)
    heard_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.heard_at = self.alive_at

    @property
    def key(self) -> UUID:
        return self.numbers.key

    def first_after(self, ack: int) -> int:
        """The number of the first event in the answer to a connect that acknowledges batch `ack`."""
        while self.ends and self.ends[0][0] <= ack:
            self.base = self.ends.pop(0)[1]
        return self.base

    def delivers(self, batch: int, end: int) -> None:
        """Batch `batch` is answered, and ends where `end` events have been brought in all."""
        self.batch = max(self.batch, batch)
        self.delivered = max(self.delivered, end)
        if end > (self.ends[-1][1] if self.ends else self.base):
            self.ends.append((batch, end))

    def doubted(self, since: datetime, why: str) -> None:
        """Something may be missing since then; the earliest doubt counts."""
        if self.doubt_since is None:
            self.doubt_since, self.doubt = since, why

    def answered(self, asked_at: datetime) -> None:
        """A poll was answered well that was passed on at `asked_at`.

        The server wrote the answer some time after that, and what came to it later waits there for the next
        poll. When it wrote it cannot be known here, so certain is only what was there when it was asked.
        """
        self.alive_at = max(self.alive_at, asked_at)
        self.heard_at = datetime.now(UTC)

    def note(self, fact: NewEvent) -> None:
        self.facts.append(fact)
        del self.facts[:-MOST_FACTS]


class Sessions:
    """The sessions that this process saw last. `number` is its own, drawn at its start."""

    def __init__(self, database: Database) -> None:
        self.number = secrets.randbits(62)
        self._database = database
        self._mine: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._mine)

    def begin(self, client_id: str, agent: str | None, *, ack: bool) -> Session:
        """A session that begins now, or whose beginning was not seen."""
        client = digest(client_id)
        session = Session(client, Producer.new(), agent, ack, datetime.now(UTC))
        self._mine[client] = session
        return session

    def known(self, client_id: str) -> Session | None:
        return self._mine.get(digest(client_id))

    async def take(self, client_id: str) -> Session | None:
        """The session of a client id, taken up from another process if it must be.

        Raises:
            DatabaseError: that cannot be told now.

        """
        client = digest(client_id)
        if (session := self._mine.get(client)) is not None:
            return session
        with database_errors():
            row = await self._database.pool.fetchrow(TAKE, client, self.number)
        if row is None:
            return None
        session = self._mine.setdefault(client, session_of(row))
        session.resumed = True
        return session

    def drop(self, session: Session) -> None:
        """The session is over."""
        session.over = True
        self._mine.pop(session.client, None)

    def saving(self, session: Session) -> Statement:
        """The statement that keeps the session as it is, or forgets it when it is over."""
        if session.over:
            return Statement(FORGET, {"client": session.client})
        session.stored = True
        return Statement(
            SAVE,
            {
                "client": session.client,
                "owner": self.number,
                "session": session.key,
                "agent": session.agent,
                "ack": session.ack,
                "channels": session.channels,
                "opened_at": session.opened_at,
                "opened": session.opened,
                "delivered": session.delivered,
                "base": session.base,
                "batches": [batch for batch, _ in session.ends],
                "ends": [end for _, end in session.ends],
                "batch": session.batch,
                "alive_at": session.alive_at,
                "patience_s": session.patience_s,
            },
        )

    async def save(self, session: Session) -> None:
        """Keep a session at once: another process may see its next request."""
        statement = self.saving(session)
        with database_errors():
            await self._database.pool.execute(*statement.alone())

    async def beat(self) -> None:
        """Write down up to where the record is certain; let go of what another process has taken up.

        What an answer makes certain is so when its events are durable, and then they have brought it along.
        """
        certain = [
            one
            for one in self._mine.values()
            if one.stored and one.doubt_since is None and not one.on_its_way
        ]
        if not certain:
            return
        columns = [one.client for one in certain], [one.batch for one in certain]
        with database_errors():
            rows = await self._database.pool.fetch(
                BEAT, self.number, *columns, [one.alive_at for one in certain]
            )
        still = {row["client"] for row in rows}
        for one in certain:
            if one.client not in still:
                self._mine.pop(one.client, None)

    def others(self, session: Session) -> list[Session]:
        """The agent's other sessions that this process knows to have begun."""
        return [
            one
            for one in self._mine.values()
            if one is not session and one.agent == session.agent and one.opened
        ]

    async def last_alive(self, session: Session) -> datetime | None:
        """When the agent was last recorded in another session, by whichever process.

        Raises:
            DatabaseError: that cannot be told now.

        """
        with database_errors():
            stored: datetime | None = await self._database.pool.fetchval(
                LAST_ALIVE, session.agent, session.client
            )
        known = [one.alive_at for one in self.others(session)]
        return max((at for at in (stored, *known) if at is not None), default=None)

    def silent(self, now: datetime) -> list[Session]:
        """Those whose client has stopped polling."""
        return [
            one
            for one in self._mine.values()
            if not one.polls and (now - one.heard_at).total_seconds() > one.patience_s + GRACE_S
        ]

    async def abandoned(self) -> list[Session]:
        """Those whose process ended, and which nobody took up."""
        with database_errors():
            rows = await self._database.pool.fetch(ABANDONED, 2 * GRACE_S)
        return [session_of(row) for row in rows]


def session_of(row: Any) -> Session:
    """A session from a row of `tap_session`."""
    return Session(
        client=row["client"],
        numbers=Producer(row["session"]),
        agent=row["agent"],
        ack=row["ack"],
        alive_at=row["alive_at"],
        channels=list(row["channels"]),
        opened_at=row["opened_at"],
        opened=row["opened"],
        delivered=row["delivered"],
        base=row["base"],
        ends=list(zip(row["batches"], row["ends"], strict=True)),
        batch=row["batch"],
        patience_s=row["patience_s"],
        stored=True,
    )


def digest(client_id: str) -> bytes:
    """What stands for a client id, which is a credential."""
    return hashlib.sha256(client_id.encode(errors="surrogatepass")).digest()
