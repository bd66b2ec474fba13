"""Who a request comes from: Basic credentials, the HTTP session (JSESSIONID), the CSRF token.

Facts: document `gws-voice-api`, section 3. Credentials open a session; a session that was forgotten is
refused with 403 and statusCode 20 until a GET with credentials opens a new one.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from service.simulator.agents import Agent

COOKIE = "JSESSIONID"
CSRF_HEADER = "X-CSRF-TOKEN"


@dataclass(slots=True)
class HttpSession:
    """What a JSESSIONID stands for."""

    session_id: str
    csrf_token: str
    agent: Agent


class Denied(Exception):
    """403 with statusCode 20: not authenticated."""


class CsrfMissing(Exception):
    """403 with a plain text: the CSRF header or the session cookie is missing or wrong."""


class Logins:
    """All HTTP sessions, by JSESSIONID."""

    def __init__(self, agents: Mapping[str, Agent], seed: int) -> None:
        self._agents = {agent.authorization: agent for agent in agents.values()}
        self._sessions: dict[str, HttpSession] = {}
        self._rng = random.Random(f"{seed}/logins")

    def identify(
        self,
        *,
        is_get: bool,
        authorization: str | None,
        session_id: str | None,
        token: str | None,
        csrf: bool,
    ) -> tuple[HttpSession, bool]:
        """Give the session of a request, and whether it is new; raises `Denied` or `CsrfMissing`."""
        if authorization is not None and authorization not in self._agents:
            raise Denied
        session = self._sessions.get(session_id or "")
        if session is not None and authorization in (None, session.agent.authorization):
            if csrf and not is_get and token != session.csrf_token:
                raise CsrfMissing
            return session, False
        if authorization is None or (session_id is not None and not is_get):
            raise Denied
        if csrf and not is_get:
            raise CsrfMissing
        return self._open(self._agents[authorization]), True

    def _open(self, agent: Agent) -> HttpSession:
        session = HttpSession(
            f"{self._rng.getrandbits(96):024x}", f"{self._rng.getrandbits(128):032x}", agent
        )
        self._sessions[session.session_id] = session
        return session

    def forget(self, agent: str | None = None) -> None:
        """Invalidate the sessions of one agent, or of all."""
        self._sessions = {
            session_id: session
            for session_id, session in self._sessions.items()
            if agent is not None and session.agent.number != agent
        }
