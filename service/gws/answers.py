"""What an HTTP answer of GWS means (page ReturnValues of the API guide, 8.5.0 to 8.6.0)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

LONGEST_MESSAGE = 500  # characters

OK = 0
PARAMETER_MISSING = 1
INVALID = 2
FORBIDDEN = 3
INTERNAL_ERROR = 4
NO_PERMISSION = 5
RESOURCE_NOT_FOUND = 6
PASSWORD_CHANGE = 8
INCOMPLETE = 9
OUT_OF_RANGE = 10
NOT_AUTHENTICATED = 20

NOTHING_HAPPENED = frozenset(
    {
        PARAMETER_MISSING,
        INVALID,
        FORBIDDEN,
        NO_PERMISSION,
        RESOURCE_NOT_FOUND,
        PASSWORD_CHANGE,
        OUT_OF_RANGE,
        NOT_AUTHENTICATED,
    }
)
"""With these GWS says no before anything is passed on. 4 and 9 leave it open, and so does any other."""


class Verdict(Enum):
    """What an answer says about the operation."""

    ACCEPTED = "accepted"
    """Processed and passed on to the telephony server; not yet done."""
    REJECTED = "rejected"
    """Certainly not done."""
    IN_DOUBT = "in doubt"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, with its body's bytes as they came."""

    http_status: int
    content_type: str
    body: bytes
    status_code: int | None
    """GWS's own code; None where the body is not GWS's."""
    message: str
    """GWS's words, for people: printable and not too long. `body` has them as they came."""
    document: dict[str, Any] | None

    @classmethod
    def of(cls, http_status: int, content_type: str, body: bytes) -> Answer:
        document = parse_object(body)
        code = document.get("statusCode") if document else None
        status_code = code if isinstance(code, int) and not isinstance(code, bool) else None
        said = str(document.get("statusMessage", ""))[:LONGEST_MESSAGE] if document else ""
        message = "".join(character if character.isprintable() else "�" for character in said)
        return cls(http_status, content_type, body, status_code, message, document)

    @property
    def verdict(self) -> Verdict:
        """Decide on `statusCode` first, on the HTTP status second (a 200 without code proves nothing)."""
        if self.status_code == OK:
            return Verdict.ACCEPTED
        if self.status_code in NOTHING_HAPPENED:
            return Verdict.REJECTED
        if self.status_code is None and self.http_status in {401, 403}:
            return Verdict.REJECTED  # refused at the door: not authenticated, or the CSRF token is missing
        return Verdict.IN_DOUBT


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body`, or None if it holds anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
