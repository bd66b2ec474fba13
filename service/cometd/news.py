"""What a session has to tell its consumer, in order. A trouble that goes on is told once."""

from __future__ import annotations

import logging

from service.cometd.advice import Advice
from service.cometd.facts import Evidence, Failing, Item, MultipleClients
from service.errors import ProtocolViolation

_log = logging.getLogger(__name__)


class News:
    """Gathers items until they are taken."""

    __slots__ = ("_crowded", "_evidence", "_failing", "_items")

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._evidence: int | None = None  # the hash of the body last told
        self._failing = ""  # the cause last told, while requests fail
        self._crowded = False  # MultipleClients was told

    def tell(self, *items: Item) -> None:
        self._items += items

    def take(self) -> list[Item]:
        """Return what is to be told, and have told it."""
        items, self._items = self._items, []
        return items

    def failing(self, cause: str, wall: float) -> None:
        """Tell why requests fail, if the cause is another one."""
        if cause != self._failing:
            self._failing = cause
            self.tell(Failing(cause, wall))

    def evidence(self, error: ProtocolViolation, wall: float) -> None:
        """Hand over a body that would not parse, once while the same one keeps coming."""
        if hash(error.body) != self._evidence:
            self._evidence = hash(error.body)
            self.tell(Evidence(error.body, str(error), wall))

    def succeeding(self) -> None:
        """Note that polls succeed: whatever fails next is news."""
        self._evidence = None
        self._failing = ""

    def crowded(self, client_id: str, advice: Advice, wall: float) -> None:
        """Tell that another client shares the session's cookies, once a session."""
        if not self._crowded:
            self._crowded = True
            _log.warning("another client shares the cookies of this session")
            self.tell(MultipleClients(client_id, advice, wall))

    def new_session(self) -> None:
        self._crowded = False
