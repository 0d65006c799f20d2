"""Waiting for a condition in real time, and the moment at which tests stop the clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

PATIENCE = 30.0  # seconds; the machine may be busy
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
T = TypeVar("T")


def until(condition: Callable[[], T], what: str | Callable[[], str], timeout: float = PATIENCE) -> T:
    """Wait until a condition is true and return its value; fail with `what`, or what it returns at the end."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {timeout:g} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.02)
    return value


def avoid_the_end_of_a_minute() -> None:
    """Wait for the next minute if this one is nearly over.

    Limits in memory count by the minutes of the clock, and right after the end of one they let one more request pass.
    """
    left = 60 - time.time() % 60
    if left < 6:
        time.sleep(left)


def waited_for(what: Callable[[], object], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(what())
