"""The one place that reads the wall clock for the application's own rows, and what keeps a log readable."""

import time
from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the present moment, aware, in UTC, with microseconds."""
    return datetime.now(UTC)


class Every:
    """True at the first call and then again after a while, so that what repeats is logged once.

    Args:
        seconds: how long it is False in between.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, float("-inf")

    def __call__(self) -> bool:
        """Whether it is time again."""
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True
