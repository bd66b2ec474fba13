"""How long to wait: time-outs for answers, and pauses that grow with each failure and are spread by chance.

Pauses are drawn evenly between nothing and their longest ("full jitter"), so that a thousand agents whose
server went away do not come back in the same second.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in seconds.

    `allowance`: added to the time the server holds a connect, for the network (CometD's clients: 10 s).
    `reply`: for the answer to anything else.
    `retry_cap`: the longest pause between two tries.
    `refused`, `refused_cap`: the first and the longest pause after the server refused us.
    `pace`: the least and most between an unconfirmed delivery and its redelivery; the least is also what an
    empty poll takes at least, whatever the server advises, lest a server that does not hold polls be
    hammered.
    """

    allowance: float = 10.0
    reply: float = 20.0
    retry_cap: float = 60.0
    refused: float = 60.0
    refused_cap: float = 900.0
    pace: tuple[float, float] = (0.5, 1.0)


_MOST_DOUBLINGS = 20


class Patience:
    """Counts failures and refusals in a row and says how long to wait after each."""

    __slots__ = ("_failures", "_refusals", "_rng", "_timing")

    def __init__(self, timing: Timing, rng: random.Random) -> None:
        self._timing = timing
        self._rng = rng
        self._failures = 0
        self._refusals = 0

    def succeeded(self) -> None:
        """Start over after a poll that succeeded."""
        self._failures = 0

    def admitted(self) -> None:
        """Start over after the server has let us in."""
        self._refusals = 0

    def after_failure(self) -> float:
        """Return the pause after a failed request: none, then up to 0.5, 1, 2, 4 s, … to the cap.

        The first tries are close together so that several fall within the time (10 s by default) for which a
        server keeps a session that does not connect.
        """
        self._failures += 1
        if self._failures == 1:
            return 0.0
        return self._some_of(self._timing.retry_cap, 0.5, self._failures - 2)

    def after_loss(self) -> float:
        """Return the pause after a session was lost: up to 1, 2, 4 s, … to the cap, until a poll succeeds."""
        self._failures += 1
        return self._some_of(self._timing.retry_cap, 1.0, self._failures - 1)

    def after_refusal(self) -> float:
        """Return the pause after a refusal: half a minute to a minute, then twice that, … to the cap."""
        self._refusals += 1
        longest = self._timing.refused * 2.0 ** min(self._refusals - 1, _MOST_DOUBLINGS)
        return min(longest, self._timing.refused_cap) * self._rng.uniform(0.5, 1.0)

    def pace(self) -> float:
        """Return the pause before an unconfirmed delivery comes again."""
        return self._rng.uniform(*self._timing.pace)

    def _some_of(self, cap: float, first: float, doublings: int) -> float:
        return self._rng.uniform(0.0, min(cap, first * 2.0 ** min(doublings, _MOST_DOUBLINGS)))
