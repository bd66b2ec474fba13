"""A call with everything that may hold personal data."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from uuid import UUID

from service.events import (
    CallsSnapshotTaken,
    NotificationReceived,
    TransferAccepted,
    TransferConfirmed,
    TransferDispatched,
    TransferKeyClaimed,
    TransferRequested,
    UnreadableReceived,
    encode,
    key_stream,
    session_stream,
    transfer_stream,
)
from service.log import EventLog, NewEvent, Producer
from service.projections.histories import Session, notification, of
from service.redaction import (
    Fields,
    Order,
)

CALL = "01RCC3N118B1V0SL8O7GK2LAES00000D"
CALLER, DESTINATION, CUSTOMER, NAME = "03012345671", "03098765432", "CU-4711-0815", "Ada Byron"
FINGERPRINT = hashlib.sha256(b"the command").hexdigest()
SECRETS = (CALLER, DESTINATION, CUSTOMER, NAME, FINGERPRINT)
FIELDS = Fields(["userData.*", "participants", "destination.phoneNumber"])
OTHER_CALL = {"id": "ANOTHER", "userData": {"k": "v"}}
ORDER = Order(CALL, FIELDS, "dpo", "request of 3 May")


async def tell(log: EventLog, call_id: str = CALL, *, settled: bool = True) -> UUID:
    """A call with everything that may hold personal data: notifications, a snapshot, a command, evidence."""
    agent, other = Session("15000"), Session("15001")
    data: dict[str, object] = {"CustomerId": CUSTOMER, "Name": NAME}
    body = json.dumps({"destination": {"phoneNumber": DESTINATION}, "userData": data}).encode()
    transfer = Producer.new()
    requested = TransferRequested(
        transfer.key, call_id, "15000", "15000", "gws", DESTINATION, FINGERPRINT, keyed=True
    )
    claimed = TransferKeyClaimed(transfer.key, call_id, FINGERPRINT)
    stream = transfer_stream(call_id)

    def heard(session: Session, state: str) -> NewEvent:
        return session.hears(notification(session.agent, call_id, state, [CALLER], data), call_id)

    def seen(event: CallsSnapshotTaken | UnreadableReceived | NotificationReceived, body: bytes) -> NewEvent:
        return NewEvent(
            Producer.new().key, session_stream(agent.producer.key), event.kind(), encode(event, body)
        )

    element = json.loads(notification("15000", call_id, "Established", [CALLER], data))
    snapshot = {
        "statusCode": 0,
        "calls": [element["data"]["call"], {"id": "ANOTHER", "userData": {"k": "v"}}],
    }
    now = datetime.now(UTC)
    session = agent.producer.key
    long = json.dumps(element).encode()
    pieces = [long[: len(long) // 2], long[len(long) // 2 :]]
    await log.append(
        [
            heard(agent, "Ringing"),
            heard(agent, "Established"),
            seen(CallsSnapshotTaken(session, "15000", now, 200), json.dumps(snapshot).encode()),
            seen(UnreadableReceived(session, "15000", now, "cut off"), json.dumps(element).encode()[:-1]),
            seen(UnreadableReceived(session, "15000", now, "cut off"), b'{"id":"%bX",' % call_id.encode()),
            *(
                seen(NotificationReceived(session, "15000", 70 + at, "/x", part=at + 1, parts=2), piece)
                for at, piece in enumerate(pieces)
            ),
            of(transfer, 0, stream, requested, body),
            of(transfer, 9, key_stream("0" * 64), claimed),
            of(transfer, 1, stream, TransferDispatched(transfer.key)),
            of(
                transfer,
                2,
                stream,
                TransferAccepted(transfer.key, 200, "application/json"),
                b'{"statusCode":0}',
            ),
            *(
                [
                    of(transfer, 3, stream, TransferConfirmed(transfer.key, "seen", ())),
                    heard(agent, "Released"),
                    heard(other, "Established"),
                ]
                if settled
                else []
            ),
        ]
    )
    return transfer.key
