"""Who is behind a request: the Basic user, else whom GWS named to ``/api/v2/me`` in that HTTP session.

An HTTP session is known by its cookie (page CSRFProtection of the API guide), of which a digest is kept, in
memory alone. For each a UUID is drawn that stands for it in the log, so that events about somebody unknown
can be filled in later.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections import OrderedDict
from datetime import UTC, datetime
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from service.events import AgentIdentified, encode, session_stream
from service.gws.answers import OK, parse_object
from service.log import NewEvent, Producer
from service.tap.heads import RequestHead, ResponseHead

SESSION_COOKIE = "JSESSIONID"
MOST_SESSIONS = 100_000
LET_IN_S = 300.0  # how long it counts that GWS has let somebody in


class Visitor(NamedTuple):
    """Who is behind a request, as far as it is known; `session` stands for the HTTP session."""

    agent: str | None
    session: UUID


class Known:
    """What is known of one HTTP session."""

    __slots__ = ("agent", "named", "session")

    def __init__(self) -> None:
        self.agent: str | None = None
        self.named = False
        """An event in the log names this session, and may have to be filled in."""
        self.session = Producer.new().key


class Who:
    """The HTTP sessions that were seen last."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._let_in: OrderedDict[bytes, float] = OrderedDict()

    def let_in(self, request: RequestHead) -> None:
        """GWS has let in whoever has these credentials."""
        credentials = credentials_of(request)
        self._let_in[credentials] = monotonic()
        self._let_in.move_to_end(credentials)
        if len(self._let_in) > MOST_SESSIONS:
            self._let_in.popitem(last=False)

    def is_let_in(self, request: RequestHead) -> bool:
        """Whether GWS has, not long ago."""
        at = self._let_in.get(credentials_of(request))
        return at is not None and monotonic() - at < LET_IN_S

    def visitor(self, request: RequestHead) -> Visitor:
        """Who sends a request."""
        known = self._of(session_of(request))
        return Visitor(basic_user(request) or known.agent, known.session)

    def name(self, request: RequestHead) -> Visitor:
        """The same, for an event that is going to name the session."""
        visitor = self.visitor(request)
        if visitor.agent is None:
            self._of(session_of(request)).named = True
        return visitor

    def learn(self, request: RequestHead, response: ResponseHead, body: bytes) -> list[NewEvent]:
        """Take up what GWS answered to ``GET /api/v2/me``; the event that fills in what is open, if any."""
        agent = user_in(body)
        if response.status != 200 or agent is None:
            return []
        identities = {session_of(request)}
        for cookie in response.values(b"set-cookie"):
            if (value := cookie_value(cookie.decode("latin-1").partition(";")[0])) is not None:
                identities.add(digest(value))
        identities.discard(digest(""))
        facts = []
        for identity in identities:
            known = self._of(identity)
            if known.named and known.agent is None:
                told = AgentIdentified(session=known.session, agent=agent, at=datetime.now(UTC))
                stream = session_stream(known.session)
                facts.append(NewEvent(Producer.new().key, stream, told.kind(), encode(told)))
            known.agent = agent
        return facts

    def _of(self, identity: bytes) -> Known:
        known = self._known.get(identity)
        if known is None:
            known = self._known[identity] = Known()
            if len(self._known) > MOST_SESSIONS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(identity)
        return known


def basic_user(request: RequestHead) -> str | None:
    """The user of Basic credentials (RFC 7617); who they really are, GWS checks."""
    scheme, _, encoded = (request.text(b"authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, _ = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return user if colon and user and user.isprintable() and len(user) <= 200 else None


def credentials_of(request: RequestHead) -> bytes:
    """The digest of what a request is let in by: its credentials, else its session."""
    return hashlib.sha256(request.value(b"authorization") or session_of(request)).digest()


def user_in(body: bytes) -> str | None:
    """The user whom an answer to ``GET /api/v2/me`` names."""
    document = parse_object(body) or {}
    user = document.get("user")
    name = user.get("userName") if isinstance(user, dict) else None
    if document.get("statusCode") != OK or not isinstance(name, str):
        return None
    return name if name and name.isprintable() and len(name) <= 200 else None


def session_of(request: RequestHead) -> bytes:
    """The digest of a request's session cookie; of nothing, if there is none."""
    for cookies in request.values(b"cookie"):
        for pair in cookies.decode("latin-1").split(";"):
            if (value := cookie_value(pair)) is not None:
                return digest(value)
    return digest("")


def cookie_value(pair: str) -> str | None:
    name, _, value = pair.strip().partition("=")
    return value if name == SESSION_COOKIE and value else None


def digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("latin-1")).digest()[:16]
