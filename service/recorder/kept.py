"""What is kept of a session outside the log, so that a later process can go on with it.

The row in `recorder_session` changes in the transaction of the events that move it (the `also` of
`EventLog.append`). The append of events that are all in the log already runs no statement, though, and the
commit that brought them in need not have moved the row to where it should stand:

- A fact written while the outcome of a delivery was unknown has moved it back to what the process knew to be
  confirmed.
- An append of a process whose agent was taken over meanwhile has brought in the events, but the row was not
  its own any more.

So after a delivery whose outcome was unknown, and for the first one after a take-over, the row is written
once more before the delivery is confirmed. Until then nothing of it was acknowledged, and it comes again.

An empty poll moves `acked` in memory only. A successor that says a lower ack than was said before loses
nothing: what was acknowledged is durable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from service.cometd import ResumeState
from service.log import Statement
from service.recorder.vault import Vault

SAVE = """
UPDATE recorder_session AS kept
SET session = now.session, delivered = now.delivered, acked = now.acked, alive_at = now.alive_at,
    idle = now.idle, secret = decode(now.secret, 'base64'), status = now.status, reason = now.reason,
    updated_at = clock_timestamp()
FROM jsonb_to_recordset($1) AS now (agent text, owner bigint, session uuid, delivered bigint, acked bigint,
    alive_at timestamptz, idle boolean, secret text, status text, reason text)
WHERE kept.agent = now.agent AND kept.owner = now.owner
"""

REASON_LIMIT = 500  # characters


class Secret(msgspec.Struct, frozen=True):
    """What is sealed. `gws_url`: the server that it is good for."""

    gws_url: str
    client_id: str
    cookies: tuple[dict[str, str | float | bool | None], ...]
    csrf: dict[str, str]
    connection_type: str
    acknowledged: bool
    channels: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Secret({self.gws_url!r})"

    def resume_state(self, alive_at: datetime | None, *, idle: bool) -> ResumeState:
        return ResumeState(
            client_id=self.client_id,
            cookies=self.cookies,
            connection_type=self.connection_type,
            acknowledged=self.acknowledged,
            channels=self.channels,
            since=None if alive_at is None else alive_at.timestamp(),
            idle=idle,
        )


@dataclass(frozen=True)
class Kept:
    """How far an agent's recording has come, as his row keeps it for the process that takes him next."""

    session: UUID | None = None
    delivered: int = 0
    acked: int = 0
    alive_at: datetime | None = None
    idle: bool = False
    secret: bytes | None = field(default=None, repr=False)


class Keeper:
    """Writes one agent's row. `owner`: the number of the process that may."""

    def __init__(self, agent: str, owner: int, gws_url: str, vault: Vault) -> None:
        self.agent = agent
        self._owner = owner
        self._gws_url = gws_url
        self._vault = vault
        self._sealed: tuple[Secret, bytes] | None = None

    def open(self, kept: Kept) -> Secret | None:
        """The secret of a row; None if it cannot be opened or is another server's."""
        plain = None if kept.secret is None else self._vault.unseal(self.agent, kept.secret)
        if plain is None:
            return None
        try:
            secret = msgspec.json.decode(plain, type=Secret)
        except msgspec.DecodeError:
            return None
        return secret if secret.gws_url == self._gws_url else None

    def nothing(self, status: str, reason: str) -> Statement:
        """The statement that says: there is no session to go on with."""
        return self._statement(Kept(), status, reason)

    def session(
        self,
        state: ResumeState,
        csrf: Mapping[str, str],
        *,
        session: UUID,
        delivered: int,
        acked: int,
        status: str,
        reason: str,
    ) -> Statement:
        """The statement that keeps `state` and how far the session's events are durable."""
        sealed = self._seal(
            Secret(
                gws_url=self._gws_url,
                client_id=state.client_id,
                cookies=tuple(dict(cookie) for cookie in state.cookies),
                csrf=dict(csrf),
                connection_type=state.connection_type,
                acknowledged=state.acknowledged,
                channels=state.channels,
            )
        )
        alive_at = None if state.since is None else moment(state.since)
        kept = Kept(session, delivered, acked, alive_at, state.idle, sealed)
        return self._statement(kept, status, reason)

    def _seal(self, secret: Secret) -> bytes:
        """Seal, unless it is what was sealed last."""
        if self._sealed is None or self._sealed[0] != secret:
            self._sealed = secret, self._vault.seal(self.agent, msgspec.json.encode(secret))
        return self._sealed[1]

    def _statement(self, kept: Kept, status: str, reason: str) -> Statement:
        told = {"agent": self.agent, "owner": self._owner, "status": status, "reason": reason[:REASON_LIMIT]}
        return Statement(SAVE, vars(kept) | told)


def moment(seconds: float) -> datetime:
    """A time of day from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)
