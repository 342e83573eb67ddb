"""Clocks for tests."""

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


class ClockThatStandsStill:
    """Shows one time until it is told another."""

    def __init__(self, time: datetime = NOON) -> None:
        self.time = time

    def now(self) -> datetime:
        """The time it shows."""
        return self.time

    def advance(self, **by: float) -> None:
        """Moves on: `advance(minutes=5)`."""
        self.time += timedelta(**by)
