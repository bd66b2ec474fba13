"""Invented GWS notifications, varied as a busy contact centre's are, of about 900 bytes each.

For measuring the log and for training its first dictionary. They follow the shape of CallStateChangeMessage
(GWS API guide, pages CallResource and CallsMessageType); numbers, ids, names and texts are drawn at random.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from uuid import UUID

from service.events import NotificationReceived, call_stream, encode
from service.log import NewEvent, Producer

HOSTS = ("gws-1.example.com", "gws-2.example.com:8443", "127.0.0.1:8080", "contact.example.org")
STATES = ("Ringing", "Dialing", "Established", "Held", "Released", "Completed")
TYPES = ("Inbound", "Outbound", "Internal", "Consult")
CAPABILITIES = (
    "hangup", "hold", "send-dtmf", "attach-user-data", "update-user-data", "delete-user-data-pair",
    "single-step-transfer", "initiate-transfer", "initiate-conference", "single-step-conference",
    "start-recording", "mute-call", "answer", "redirect", "complete-transfer", "retrieve",
)  # fmt: skip
KEYS = (
    "TransferReason", "TransferAgent", "CustomerSegment", "CaseNumber", "Language", "IVRPath", "ServiceType",
    "AccountId", "Priority", "Queue", "Comment", "RTargetObjectSelected", "GSIP_RECORD", "CallerIntent",
    "PreviousAgent", "SLA", "Campaign", "OrderId",
)  # fmt: skip
WORDS = (
    "billing", "escalation", "callback", "requested", "customer", "asks", "for", "refund", "technical",
    "second", "level", "wrong", "department", "language", "supervisor", "contract", "delivery", "delayed",
    "router", "replaced", "gold", "silver", "premium", "new", "existing", "password", "invoice", "dispute",
)  # fmt: skip
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUV"


class Session:
    """An agent's session: one device, one call after the other."""

    def __init__(self, number: int, draw: random.Random) -> None:
        self.producer = Producer.new()
        self.number = str(number)
        self.device = UUID(int=draw.getrandbits(128), version=4)
        self.host = draw.choice(HOSTS)
        self.count = 0
        self.call_id = ""
        self.connection_id = ""
        self.left = 0


class Traffic:
    """An endless series of events from `sessions` agents' sessions; the same `seed` makes the same bodies.

    Call ids have the form of T-Servers': a prefix for each server and a count.
    """

    def __init__(self, seed: int, sessions: int = 500) -> None:
        self._random = random.Random(seed)  # noqa: S311 variety, not a secret
        self._servers = ["01" + "".join(self._random.choices(ALPHABET, k=23)) for _ in range(4)]
        self._calls = self._random.getrandbits(16)
        self._sessions = [Session(15_000 + number, self._random) for number in range(sessions)]

    def events(self, count: int) -> Iterator[NewEvent]:
        """The next `count` events, each of a session chosen at random."""
        for _ in range(count):
            yield self.event(self._random.choice(self._sessions))

    def event(self, session: Session) -> NewEvent:
        """The next event of one session."""
        count = session.count
        session.count += 1
        if session.left == 0:
            self._begin_call(session)
        session.left -= 1
        fact = NotificationReceived(
            session=session.producer.key, agent=session.number, count=count, channel="/v2/me/calls"
        )
        payload = encode(fact, self._notification(session))
        event_id = session.producer.event_id(count)
        return NewEvent(event_id, call_stream(session.call_id), fact.kind(), payload)

    def _begin_call(self, session: Session) -> None:
        self._calls += 1
        number, suffix = self._calls, ""
        for _ in range(7):
            number, digit = divmod(number, len(ALPHABET))
            suffix = ALPHABET[digit] + suffix
        session.call_id = self._random.choice(self._servers) + suffix
        session.connection_id = f"00710271{self._calls:08x}"
        session.left = self._random.randrange(2, 9)

    def _notification(self, session: Session) -> bytes:
        draw, call_id = self._random, session.call_id
        call = {
            "id": call_id,
            "state": draw.choice(STATES),
            "callUuid": call_id,
            "connId": session.connection_id,
            "deviceUri": f"http://{session.host}/api/v2/devices/{session.device}",
            "participants": [self._participant() for _ in range(draw.choice((1, 1, 1, 1, 1, 2)))],
            "dnis": self._number(),
            "callType": draw.choice(TYPES),
            "capabilities": draw.sample(CAPABILITIES, draw.randrange(3)),
            "duration": str(draw.randrange(3_000)),
            "mute": "Off",
            "supervisorListeningIn": False,
            "monitoredUserMuted": False,
            "monitoring": False,
            "uri": f"http://{session.host}/api/v2/me/calls/{call_id}",
            "path": f"/calls/{call_id}",
        }
        if draw.random() < 0.35:
            call["userData"] = {key: self._value() for key in draw.sample(KEYS, draw.randrange(1, 4))}
        data = {
            "notificationType": draw.choice(("StatusChange", "StatusChange", "AttachedDataChanged")),
            "call": call,
            "phoneNumber": session.number,
            "extensions": {"BusinessCall": draw.randrange(2)},
            "messageType": "CallStateChangeMessage",
        }
        return json.dumps({"data": data, "channel": "/v2/me/calls"}, separators=(",", ":")).encode()

    def _participant(self) -> dict[str, str]:
        number = self._number()
        return {"e164Number": "", "formattedPhoneNumber": number, "phoneNumber": number, "digits": number}

    def _number(self) -> str:
        draw = self._random
        return draw.choice((f"{draw.randrange(15_000, 16_000)}", f"+1{draw.randrange(10**9, 10**10)}"))

    def _value(self) -> str:
        draw = self._random
        return draw.choice(
            (
                " ".join(draw.choices(WORDS, k=draw.randrange(1, 6))),
                str(draw.getrandbits(32)),
                f"{draw.getrandbits(64):016X}",
            )
        )
