"""What lies between the state machine and a server: the seam for transports and for credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from service.cometd.actions import Purpose
from service.cometd.cookies import Cookies


class Transport(Protocol):
    """Carries request bodies to a server and brings response bodies back.

    A transport belongs to one agent. It never tries anything again of its own accord, and what it has given
    up, by an error or a time-out, can never turn up later: the connection is closed. So it is after
    cancellation, unless the transport is streaming and was only waiting for a frame: the session knows a late
    reply by its id.
    """

    @property
    def connection_type(self) -> str:
        """The Bayeux name: ``long-polling`` or ``websocket``."""

    @property
    def streaming(self) -> bool:
        """Whether the server sends frames of its own accord, so that `receive` has a meaning."""

    @property
    def cookies(self) -> Cookies:
        """The agent's cookies, which a resumed session must have."""

    async def send(self, body: bytes, purpose: Purpose, wait: float) -> bytes:
        """Send a request and return the body of its response, or the first frame that comes after it.

        Raises `TransportFailed` if there is none within `wait` seconds.
        """

    async def receive(self, wait: float) -> bytes:
        """Return the next frame. Raises `TransportFailed` if there is none within `wait` seconds."""

    async def close(self) -> None:
        """Let go of what this agent holds; shared connections stay open."""


class Credentials(Protocol):
    """Supplies the headers that let a request in, and learns from those of each response.

    HTTP Basic is a constant; a CSRF token is kept by `observe` and sent by `headers`.
    """

    def headers(self) -> Mapping[str, str]:
        """Return the headers to send with the next request."""

    def observe(self, headers: Mapping[str, str]) -> None:
        """Take the headers of a response, of whatever status. Names are matched without regard to case."""


class Anonymous:
    """No credentials."""

    __slots__ = ()

    def headers(self) -> Mapping[str, str]:
        return {}

    def observe(self, headers: Mapping[str, str]) -> None:
        """Learn nothing."""
