"""How long something lives, in words; the same words in mails and on pages, computed from the setting."""

UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def in_words(seconds: int) -> str:
    """Return such as "1 hour", "90 minutes" or "3 days": the largest unit that fits a whole number of times.

    Args:
        seconds: at least 1.
    """
    size, unit = next((size, unit) for size, unit in UNITS if seconds % size == 0)
    number = seconds // size
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
