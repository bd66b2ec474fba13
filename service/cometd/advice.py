"""What the server advises, with every blank filled in, so that no time-out is ever "none" by omission.

The newest advice replaces the older one entirely; fields that it leaves out take the defaults below, not the
values of the advice before (Bayeux 1.0, and CometD's own clients).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST = 3600.0
"""Seconds; a longer interval or time-out than this is taken for a mistake and cut to it."""


@dataclass(frozen=True, slots=True)
class Advice:
    """How the server wants to be polled. All times are **seconds** (on the wire they are milliseconds).

    `reconnect`: ``retry``, ``handshake`` or ``none``; anything unknown counts as ``retry``.
    `interval`: the least time between the end of one connect and the next. Negative: do not connect again.
    `timeout`: how long the server holds the next connect.
    `max_interval`: how long the server keeps a session that does not connect, beyond `interval`; None when it
    does not say (CometD's default is 10 s).
    `multiple_clients`: another client shares our cookies.
    `hosts`: other hosts to try. They are not followed, only shown.
    """

    reconnect: str = "retry"
    interval: float = 0.0
    timeout: float = 30.0
    max_interval: float | None = None
    multiple_clients: bool = False
    hosts: tuple[str, ...] = field(default=())

    @property
    def ends_session(self) -> bool:
        """Whether a connect in the present session is forbidden from now on."""
        return self.reconnect != "retry" or self.interval < 0

    @property
    def gives_up(self) -> bool:
        """Whether nothing at all may be tried automatically."""
        return self.reconnect == "none" or self.interval < 0


DEFAULT = Advice()


def parse(advice: Mapping[str, Any], connection_type: str) -> Advice:
    """Read an `advice` field, with the overrides for this transport if there are any."""
    own = advice.get(connection_type)
    if isinstance(own, dict):
        advice = {**advice, **own}
    reconnect = advice.get("reconnect")
    timeout = _seconds(advice.get("timeout"))
    hosts = advice.get("hosts")
    return Advice(
        reconnect=reconnect if reconnect in ("handshake", "none") else "retry",
        interval=_seconds(advice.get("interval")) or 0.0,
        timeout=DEFAULT.timeout if timeout is None or timeout < 0 else timeout,
        max_interval=_seconds(advice.get("maxInterval")),
        multiple_clients=advice.get("multiple-clients") is True,
        hosts=tuple(host for host in hosts if isinstance(host, str)) if isinstance(hosts, list) else (),
    )


def _seconds(milliseconds: Any) -> float | None:
    """Read a time; what is not a number is as good as absent."""
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    return min(max(milliseconds, -1000), LONGEST * 1000) / 1000
