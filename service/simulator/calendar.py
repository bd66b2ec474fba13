"""When calls come to a contact centre: most at ten and at three, few on Saturdays, none on Sundays."""

from dataclasses import dataclass

HOUR_S = 3_600
HOURS = (0, 0, 0, 0, 0, 0, 0, 1, 4, 8, 10, 9, 6, 7, 9, 10, 8, 5, 3, 1, 0, 0, 0, 0)
"""How many calls come in each hour of a day, against each other."""
WEEKDAYS = (10, 9, 9, 9, 10, 3, 0)
"""The same for the days of a week, from Monday."""


@dataclass(frozen=True)
class Calendar:
    """`weeks` weeks from `start`, midnight of a Monday in seconds since the epoch."""

    start: float
    weeks: int = 3

    def moment(self, share: float) -> float:
        """The moment by which `share` (0 to 1) of all calls have come, in seconds since the epoch."""
        weights = [day * hour for day in WEEKDAYS for hour in HOURS] * self.weeks
        left = share * sum(weights)
        for number, weight in enumerate(weights):
            if left < weight:
                return self.start + (number + left / weight) * HOUR_S
            left -= weight
        return self.start + len(weights) * HOUR_S
