"""Notifications and the call resource (pages CallsMessageType and CallResource of the API guide).

Read for what is needed, and tolerant: whatever is missing or of another type reads as None, since the bytes
themselves are kept. Unknown fields stay in `document`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.gws import dialect
from service.gws.answers import parse_object

LONGEST_ID = 190  # characters; a stream's name has room for it


@dataclass(frozen=True, slots=True)
class Call:
    """One leg of a call: the call as one device sees it. `document` is the whole resource as it came."""

    document: Mapping[str, Any]

    @property
    def id(self) -> str | None:
        """The call's id: the callUuid since 8.5.2, the connId before."""
        value = self._text("id")
        return value if value and len(value) <= LONGEST_ID and value.isprintable() else None

    @property
    def state(self) -> str | None:
        return self._text("state")

    @property
    def conn_id(self) -> str | None:
        return self._text("connId")

    @property
    def call_type(self) -> str | None:
        return self._text("callType")

    @property
    def device(self) -> str | None:
        """The device whose leg this is: the last part of `deviceUri` (hosts differ behind balancers)."""
        uri = self._text("deviceUri")
        return uri.rstrip("/").rpartition("/")[2] if uri else None

    @property
    def participants(self) -> tuple[str, ...]:
        """The numbers of the *others* on the call; objects since 8.5.2, plain strings before."""
        found: list[str] = []
        for participant in self._array("participants"):
            number = participant.get("phoneNumber") if isinstance(participant, dict) else participant
            if isinstance(number, str):
                found.append(number)
        return tuple(found)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What may be done with the call now."""
        return tuple(item for item in self._array("capabilities") if isinstance(item, str))

    @property
    def user_data(self) -> Mapping[str, Any]:
        """The attached data; absent when there is none."""
        value = self.document.get("userData")
        return value if isinstance(value, dict) else {}

    def _text(self, name: str) -> str | None:
        value = self.document.get(name)
        return value if isinstance(value, str) else None

    def _array(self, name: str) -> list[Any]:
        value = self.document.get(name)
        return value if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Notification:
    """One CometD event of GWS."""

    channel: str | None
    data: Mapping[str, Any]

    @classmethod
    def parse(cls, element: bytes) -> Notification | None:
        """Read one element of a CometD response; None where it is not an object with `data`."""
        document = parse_object(element)
        if document is None:
            return None
        channel, data = document.get("channel"), document.get("data")
        if not isinstance(data, dict):
            return None
        return cls(channel if isinstance(channel, str) else None, data)

    @property
    def message_type(self) -> str | None:
        value = self.data.get("messageType")
        return value if isinstance(value, str) else None

    @property
    def notification_type(self) -> str | None:
        value = self.data.get("notificationType")
        return value if isinstance(value, str) else None

    @property
    def phone_number(self) -> str | None:
        """The agent's *own* number."""
        value = self.data.get("phoneNumber")
        return value if isinstance(value, str) else None

    @property
    def call(self) -> Call | None:
        value = self.data.get("call")
        return Call(value) if isinstance(value, dict) else None

    @property
    def occurred_at(self) -> datetime | None:
        """GWS's own time of the event (`serverGenerationTimestamp`, epoch ms), where it is given."""
        metrics = self.data.get("metrics")
        processing = metrics.get("eventProcessing") if isinstance(metrics, dict) else None
        millis = processing.get("serverGenerationTimestamp") if isinstance(processing, dict) else None
        if not isinstance(millis, int) or isinstance(millis, bool):
            return None
        try:
            return datetime.fromtimestamp(millis / 1000, UTC)
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def is_error(self) -> bool:
        """Whether it tells of a failed operation, in any of the shapes seen."""
        return (
            self.message_type in dialect.ERROR_MESSAGES
            or (self.notification_type or "").endswith("Error")
            or any(name in self.data for name in ("errorCode", "errorMessage", "error"))
        )

    @property
    def error_text(self) -> str:
        """Code and text of an error, from `data` or from `data.error`; both are optional."""
        nested = self.data.get("error")
        source = nested if isinstance(nested, dict) else self.data
        parts = (source.get("errorCode"), source.get("errorMessage"))
        return " ".join(str(part) for part in parts if part is not None) or "no code and no text"
