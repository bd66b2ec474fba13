"""What really happened: the record a test compares a client's knowledge with.

Everything the simulator published, delivered and was told is kept here, whether or not any client came to
know it. Bodies are the exact bytes. Times are seconds since the epoch, by the simulator's own clock.
"""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class ExecutedTransfer:
    """A single-step transfer that the switch carried out. `recalled`: the call came back unanswered."""

    call_id: str
    conn_id: str
    agent: str
    destination: str
    at: float
    user_data: list[tuple[str, Any]]
    recalled: bool = False


@dataclass(slots=True)
class Command:
    """A REST operation that arrived, and what became of it.

    `answer_status` and `answer_body` are what was sent back, None as long as (or if) nothing was; `executed`
    tells whether the switch did it, `fault` the kind of the fault that struck, if one did.
    """

    at: float
    agent: str
    call_id: str | None
    operation: str
    body: bytes
    executed: bool = False
    fault: str | None = None
    answer_status: int | None = None
    answer_body: bytes | None = None
    answered_at: float | None = None


@dataclass(slots=True)
class Published:
    """A message made for an agent, whether or not a session was there to receive it.

    `sessions` are the client ids in whose queues it was put; `lost` tells that a fault swallowed it.
    """

    at: float
    agent: str
    channel: str
    body: bytes
    call_id: str | None = None
    state: str | None = None
    sessions: list[str] = field(default_factory=list)
    lost: bool = False


@dataclass(slots=True)
class Delivery:
    """A message in one session's queue, in queue order.

    `responses` counts the responses in which it was wholly written to the connection; whether the client
    read them only its acknowledgement tells (`acknowledged_at`; None without the extension).
    """

    queued_at: float
    channel: str
    body: bytes
    responses: int = 0
    acknowledged_at: float | None = None


@dataclass(slots=True)
class SessionTruth:
    """One CometD session, from handshake to its end. `ended_because` is None while it lives."""

    client_id: str
    agent: str
    ack: bool
    opened_at: float
    ended_at: float | None = None
    ended_because: str | None = None
    messages: list[Delivery] = field(default_factory=list)


@dataclass(slots=True)
class Truth:
    """All of it. `sessions` by client id, in order of handshake; the lists in order of time."""

    transfers: list[ExecutedTransfer] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    sessions: dict[str, SessionTruth] = field(default_factory=dict)

    def transfers_of(self, call_id: str) -> list[ExecutedTransfer]:
        """Give the single-step transfers that were really carried out on this call."""
        return [transfer for transfer in self.transfers if transfer.call_id == call_id]

    def sessions_of(self, agent: str) -> list[SessionTruth]:
        return [session for session in self.sessions.values() if session.agent == agent]

    def as_json(self) -> dict[str, Any]:
        """Give plain JSON values; a body that is not UTF-8 has its stray bytes escaped with backslashes."""
        return {
            "transfers": [asdict(transfer) for transfer in self.transfers],
            "commands": [_readable(asdict(command)) for command in self.commands],
            "published": [_readable(asdict(message)) for message in self.published],
            "sessions": [
                asdict(session) | {"messages": [_readable(asdict(one)) for one in session.messages]}
                for session in self.sessions.values()
            ],
        }


def _readable(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
        for name, value in record.items()
    }
