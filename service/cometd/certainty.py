"""Up to when a session is certain to have missed nothing, and what is told when that comes into doubt."""

from __future__ import annotations

from service.cometd.facts import Delivery, PossibleGap, Resumed, ResumeState


class Certainty:
    """The certain span of one session after the other.

    `open`: the consumer counts on a session: `Opened` was told, or it was taken over.
    `since`: the end of the certain span, seconds since 1970; None if not known.
    """

    __slots__ = ("_gap", "_resuming", "_unsure", "open", "since")

    def __init__(self) -> None:
        self.open = False
        self.since: float | None = None
        self._resuming = False  # taken over, and no poll has succeeded yet
        self._unsure = False  # taken over from a process that may have lost a response
        self._gap = False  # PossibleGap was told, and no poll has succeeded since

    @property
    def in_doubt(self) -> bool:
        """Whether a possible gap was told that has not ended."""
        return self._gap

    def take_over(self, resume: ResumeState) -> None:
        """Go on with the session of an earlier process."""
        self.since = resume.since
        self.open = self._resuming = True
        self._unsure = not (resume.idle or resume.acknowledged)

    def begin(self, wall: float) -> None:
        """Begin the span of a session that has just opened."""
        self.open = True
        self.since = wall

    def end(self) -> None:
        """End with the session. `since` stays: the gap begins there."""
        self.open = self._resuming = self._gap = self._unsure = False

    def reach(self, delivery: Delivery) -> None:
        """Let the span reach as far as a delivery that is durable now."""
        if self.open:
            self.since = self.after(delivery)

    def after(self, delivery: Delivery) -> float | None:
        """Return the end of the span if this delivery is durable.

        With acknowledgement, events outside a batch say nothing about those that wait in the server's queue.
        """
        whole = delivery.batch is not None or not delivery.acknowledged
        return self._no_earlier(delivery.asked_at) if whole else self.since

    def polled_in_vain(self, asked_at: float) -> None:
        """Let the span reach to when a connect was sent whose good response has no events."""
        self.since = self._no_earlier(asked_at)

    def _no_earlier(self, moment: float) -> float:
        return moment if self.since is None else max(self.since, moment)

    def doubt(self, client_id: str, cause: str, wall: float) -> list[PossibleGap]:
        """Tell the possible gap of a failed poll without acknowledgement, once until polls succeed again."""
        if self._gap:
            return []
        self._gap = True
        self._unsure = False
        return [PossibleGap(client_id, cause, self.since, wall)]

    def polled(self, client_id: str, wall: float, *, acknowledged: bool) -> list[PossibleGap | Resumed]:
        """Say that polls succeed (again), if that is news."""
        if not self._resuming and not self._gap:
            return []
        told: list[PossibleGap | Resumed] = []
        if self._unsure:
            told += self.doubt(client_id, "an earlier process left off while it polled", wall)
        self._resuming = self._gap = self._unsure = False
        return [*told, Resumed(client_id, acknowledged, self.since, wall)]
