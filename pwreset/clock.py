"""Time: the clock, the column type for times, limits on how often and how long something runs, durations in words.

Only `utcnow` reads the wall clock for the application's own rows, so tests can replace it.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import TypeVar

from sqlalchemy import DateTime, Dialect
from sqlalchemy.types import TypeDecorator

T = TypeVar("T")
CLOCK_TOLERANCE = timedelta(minutes=2)
"""How far the clocks of two machines may differ. A time further ahead was written before a clock was set back."""
UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def utcnow() -> datetime:
    """Return the current time in UTC, aware, with microseconds."""
    return datetime.now(UTC)


class UTCDateTime(TypeDecorator[datetime]):
    """A column of times in UTC. SQLite stores no time zone, so it is added when a value is read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a time to UTC.

        Raises:
            ValueError: the time has no zone, so it could be off by hours.
        """
        if value is not None and value.tzinfo is None:
            raise ValueError("a time needs a time zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the time with its zone, UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def at_most_every(seconds: float) -> Callable[[], bool]:
    """Return a function that returns True at its first call, and then at most once in `seconds`.

    It limits how often a repeated problem is logged.
    """
    last = float("-inf")

    def is_time() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    return is_time


def call_with_timeout(seconds: float, function: Callable[[], T]) -> T:
    """Return what `function` returns, or raise what it raises, if that takes at most `seconds`.

    The call runs in a thread, which continues after a timeout: no socket timeout covers a DNS lookup, a reply in small
    pieces, or a frozen server that keeps its connections open. The caller must limit how many such threads there are.

    Raises:
        TimeoutError: there was no result in time.
    """
    result: Future[T] = Future()

    def call() -> None:
        try:
            result.set_result(function())
        except Exception as error:  # noqa: BLE001 (raised again for the caller)
            result.set_exception(error)

    threading.Thread(target=call, name="call-with-timeout", daemon=True).start()
    return result.result(seconds)


def humanize_duration(seconds: int) -> str:
    """Return a duration in words, such as "1 hour", "90 minutes" or "3 days".

    Args:
        seconds: at least 1. The text uses the largest unit that gives a whole number.
    """
    size, unit = next((size, unit) for size, unit in UNITS if seconds % size == 0)
    number = seconds // size
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def humanize_wait(seconds: int) -> str:
    """Return a waiting time in words, such as "40 seconds" or "3 minutes", rounded up to whole minutes from 60 s on.

    Args:
        seconds: at least 1.
    """
    return humanize_duration(seconds if seconds < 60 else 60 * ceil(seconds / 60))
