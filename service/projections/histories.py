"""Made-up histories of calls, as GWS would tell them: for benchmarks and tests.

Seeded: the same seed gives the same events, ids of events aside. `live` calls run at a time, each told by one
session per agent; about a third of them are transferred by command.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from service.events import (
    Event,
    NotificationReceived,
    TransferAccepted,
    TransferConfirmed,
    TransferDispatched,
    TransferRequested,
    call_stream,
    encode,
    transfer_stream,
)
from service.log import NewEvent, Producer

HOST = "http://127.0.0.1:8080/api/v2"
REASONS = ("Escalation", "Billing", "Sales", "Language")
CAPABILITIES = {
    "Ringing": ["Answer", "ClearCall", "AttachUserData", "UpdateUserData", "DeleteUserData"],
    "Established": ["Hold", "Hangup", "SendDtmf", "SingleStepTransfer", "InitiateTransfer", "UpdateUserData"],
    "Held": ["Retrieve", "SingleStepTransfer", "InitiateTransfer", "Hangup", "UpdateUserData"],
    "Released": [],
}
STARTED_MS = 1_700_000_000_000


class Session:
    """One agent's CometD session, as the recorder numbers it."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.producer = Producer.new()
        self.count = 0

    def hears(self, body: bytes, call_id: str) -> NewEvent:
        event = NotificationReceived(
            session=self.producer.key, agent=self.agent, count=self.count, channel="/v2/me/calls"
        )
        self.count += 1
        return NewEvent(
            self.producer.event_id(self.count - 1), call_stream(call_id), event.kind(), encode(event, body)
        )


class Histories:
    """Events of many calls, in the order in which a log would have them."""

    def __init__(self, *, seed: int = 1, live: int = 1_000, agents: int = 2_000) -> None:
        self._random = random.Random(seed)  # noqa: S311 made-up traffic
        self._live = live
        self._sessions = [Session(str(15_000 + number)) for number in range(agents)]
        self._placed = 0
        self._told = 0

    def events(self) -> Iterator[NewEvent]:
        """For ever: each time one of the live calls goes on; one that has ended makes room for another."""
        calls = [self._call() for _ in range(self._live)]
        while True:
            place = self._random.randrange(self._live)
            event = next(calls[place], None)
            if event is None:
                calls[place] = self._call()
                continue
            yield event

    def _call(self) -> Iterator[NewEvent]:
        """One call from its ringing to its end."""
        rng = self._random
        self._placed += 1
        call_id = f"{rng.getrandbits(100):025X}{self._placed:07X}"
        agent, other = rng.sample(self._sessions, 2)
        caller = f"030{rng.randrange(10**7):07d}"
        data: dict[str, object] = {"CustomerId": str(rng.randrange(10**8)), "Segment": "Private"}
        for state in ("Ringing", "Established", "Held", "Established"):
            yield self._notice(agent, call_id, state, caller, data)
        data = data | {"Topic": "Contract", "Language": "de"}
        yield self._notice(agent, call_id, "Established", caller, data, why="AttachedDataChanged")
        if rng.random() < 0.3:
            data = data | {"TransferReason": rng.choice(REASONS), "TransferAgent": f"Agent{agent.agent}"}
            yield from self._transfer(agent, other, call_id, caller, data)
            agent = other
        for state in ("Held", "Established", "Released"):
            yield self._notice(agent, call_id, state, caller, data)

    def _transfer(
        self, agent: Session, other: Session, call_id: str, caller: str, data: dict[str, object]
    ) -> Iterator[NewEvent]:
        transfer = Producer.new()
        body = msgspec.json.encode(
            {"operationName": "SingleStepTransfer", "destination": {"phoneNumber": other.agent}}
            | {"userData": data}
        )
        requested = TransferRequested(
            transfer_id=transfer.key,
            call_id=call_id,
            agent=agent.agent,
            caller=agent.agent,
            door="gws",
            destination=other.agent,
            fingerprint="0" * 64,
        )
        stream = transfer_stream(call_id)
        yield of(transfer, 0, stream, requested, body)
        yield of(transfer, 1, stream, TransferDispatched(transfer.key))
        accepted = TransferAccepted(transfer.key, 200, "application/json")
        yield of(transfer, 2, stream, accepted, b'{"statusCode":0}')
        yield self._notice(agent, call_id, "Released", caller, data)
        yield self._notice(other, call_id, "Ringing", caller, data)
        confirmed = TransferConfirmed(transfer.key, "destination's leg seen", ())
        yield of(transfer, 3, stream, confirmed)
        yield self._notice(other, call_id, "Established", caller, data)

    def _notice(
        self,
        session: Session,
        call_id: str,
        state: str,
        other: str,
        data: dict[str, object],
        *,
        why: str = "StatusChange",
    ) -> NewEvent:
        self._told += 1
        millis = STARTED_MS + self._told
        return session.hears(
            notification(session.agent, call_id, state, [other], data, why=why, millis=millis), call_id
        )


def notification(
    number: str,
    call_id: str,
    state: str,
    participants: list[str],
    data: dict[str, object],
    *,
    why: str = "StatusChange",
    millis: int | None = STARTED_MS,
) -> bytes:
    """A call notification to `number` as GWS 8.5.2 forms it."""
    call = {
        "id": call_id,
        "state": state,
        "callUuid": call_id,
        "connId": f"0071{call_id[-12:]}",
        "deviceUri": f"{HOST}/devices/device-{number}",
        "participants": [
            {"e164Number": "", "formattedPhoneNumber": one, "digits": one, "phoneNumber": one}
            for one in participants
        ],
        "dnis": number,
        "callType": "Inbound",
        "capabilities": CAPABILITIES.get(state, []),
        **({"userData": data} if data else {}),
        "duration": "12",
        "mute": "Off",
        "supervisorListeningIn": False,
        "monitoredUserMuted": False,
        "monitoring": False,
        "uri": f"{HOST}/me/calls/{call_id}",
        "path": f"/calls/{call_id}",
    }
    document: dict[str, object] = {
        "notificationType": why,
        "call": call,
        "phoneNumber": number,
        "extensions": {"BusinessCall": 1},
        "messageType": "CallStateChangeMessage",
    }
    if millis is not None:
        document["metrics"] = {"eventProcessing": {"serverGenerationTimestamp": millis}}
    return msgspec.json.encode({"data": document, "channel": "/v2/me/calls"})


def of(producer: Producer, count: int, stream: str, event: Event, body: bytes | None = None) -> NewEvent:
    return NewEvent(producer.event_id(count), stream, event.kind(), encode(event, body))
