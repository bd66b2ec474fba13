"""How far a session has come with its end in good order."""

from __future__ import annotations

from service.cometd.requests import Request

_TRIES = 3
"""How often a closing session tries its last connect."""


class Closing:
    """The end of a session: one more connect, answered, then good-bye or none.

    `keep`: whether the server's session is left for a successor; None while nobody asks for an end.
    `drained`: the last connect was answered, and all that it brought is durable.
    `older`: the poll that was interrupted to close and whose response is still wanted.
    """

    __slots__ = ("_tries", "drained", "keep", "older")

    def __init__(self) -> None:
        self.keep: bool | None = None
        self.drained = False
        self.older: Request | None = None
        self._tries = 0

    @property
    def begun(self) -> bool:
        return self.keep is not None

    def tried_in_vain(self) -> bool:
        """Count a try that did not bring the end; return whether it was the last one."""
        self._tries += 1
        return self._tries >= _TRIES
