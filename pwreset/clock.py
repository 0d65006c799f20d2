"""The one place that reads the wall clock for the application's own rows; it must not hold any state."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the present moment, aware, in UTC, with microseconds."""
    return datetime.now(UTC)
