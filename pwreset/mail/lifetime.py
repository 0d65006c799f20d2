"""How long something lives, or is to be waited for, in words; the same in mails and on pages, from one number."""

from math import ceil

UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def in_words(seconds: int) -> str:
    """Return such as "1 hour", "90 minutes" or "3 days": the largest unit that fits a whole number of times.

    Args:
        seconds: at least 1.
    """
    size, unit = next((size, unit) for size, unit in UNITS if seconds % size == 0)
    number = seconds // size
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def wait_in_words(seconds: int) -> str:
    """Return such as "40 seconds" or "3 minutes", rounded up: nobody reads 167 seconds.

    Args:
        seconds: at least 1.
    """
    return in_words(seconds if seconds < 60 else 60 * ceil(seconds / 60))
