"""The limits per client: Flask-Limiter's own, counted in the memory of each process or, with REDIS_URL, in Redis.

While Redis does not answer, Flask-Limiter counts in the memory of each process, starting at zero. Requests that wait
for Redis when it stops are not counted, except the first one (`swallow_errors` in `extensions`). After 1, 2, 4, 8, 16
and 32 seconds, and then after 1 again, one request checks whether Redis is back. No timeout covers a slow DNS lookup or
a reply that never ends; these delay the requests that wait for them. Redis counts by the clock of its own machine: if
that clock is set back by more than a minute, delete the keys in Redis.
"""

from collections.abc import Callable
from typing import Any

from flask import current_app

TIMEOUT = 0.25  # seconds; the first request of an outage waits twice: to count, and to check whether Redis is back


def per_minute(setting: str) -> Callable[[], str]:
    """Return a function that gives Flask-Limiter the limit for each request: `<value of the setting> per minute`."""
    return lambda: f"{current_app.config[setting]} per minute"


def storage_settings(redis_url: str | None) -> dict[str, Any]:
    """Return Flask-Limiter's settings for its storage.

    Args:
        redis_url: the setting REDIS_URL.
    """
    if redis_url is None:
        return {"RATELIMIT_STORAGE_URI": "memory://"}
    options = {"key_prefix": "pwreset", "socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT}
    return {
        "RATELIMIT_STORAGE_URI": redis_url,
        "RATELIMIT_STORAGE_OPTIONS": options,
        "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED": True,
    }
