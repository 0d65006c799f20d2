"""Where the limits per client are counted: in the memory of each process and, with REDIS_URL, in Redis for all of them.

Decides what happens while Redis is away: one short wait, then each process counts for itself until a thread finds Redis
back. Requests never speak to Redis themselves, and nothing that Redis says may get into a log: an error can repeat the
password. Nothing of Redis is imported, and no thread started, before it is needed.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from flask import Flask, current_app
from flask_limiter import Limiter
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import RateLimiter

from pwreset.clock import at_most_every, call_with_timeout

DEADLINE = 0.5  # seconds that a request waits for Redis, whatever Redis, its host or its name server do
PAUSE = 1.0  # seconds between two looks whether Redis is back; longer than a request that is still waiting
CLOCKS_DIFFER = 120.0  # seconds, between two machines, and nobody's clock was set
PREFIX = "pwreset"  # of every key
T = TypeVar("T")
S = TypeVar("S", MemoryStorage, RedisStorage)
logger = logging.getLogger(__name__)


def per_minute(setting: str) -> Callable[[], str]:
    """Return what tells Flask-Limiter, at each request, how many a setting allows one client in a minute."""
    return lambda: f"{current_app.config[setting]} per minute"


class PerAppLimiter(Limiter):
    """Flask-Limiter for several applications in one process, each with its own counts and its own switch.

    Flask-Limiter itself keeps those of the application that was bound last.
    """

    def init_app(self, app: Flask) -> None:
        """Bind the limits to an application."""
        with app.app_context():
            super().init_app(app)
            if self.enabled:
                app.extensions["pwreset_limiter"] = super().limiter

    @property
    def limiter(self) -> RateLimiter:
        """What counts for the present application."""
        limiter: RateLimiter = current_app.extensions["pwreset_limiter"]
        return limiter

    @property
    def enabled(self) -> bool:
        """Whether the present application limits anything."""
        return bool(current_app.config["RATELIMIT_ENABLED"])

    @enabled.setter
    def enabled(self, _: bool) -> None:
        """Flask-Limiter sets it at every start; the setting alone decides."""


class ProcessStorage(MemoryStorage):
    """Counts in the memory of this process, and forgets who stays away.

    limits' own storage keeps a list for every client that ever came, and walks through all of them after each request.
    """

    STORAGE_SCHEME = ["process"]  # noqa: RUF012 (limits fixes the type)

    def __init__(self, uri: str | None = None) -> None:
        super().__init__(uri)
        self._counting, self._time_to_forget = threading.Lock(), at_most_every(60)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count a request, and return whether it is within the limit."""
        with self._counting:
            if self._time_to_forget():
                for quiet in [name for name, entries in self.events.items() if not entries]:
                    del self.events[quiet]
            return _acquire(MemoryStorage, self, key, limit, expiry, amount)


class SharedStorage(ProcessStorage):
    """Counts in Redis for all processes, and in memory as well: there each process's own count goes on without Redis.

    Args:
        uri: `shared+` and REDIS_URL.
    """

    STORAGE_SCHEME = ["shared+redis", "shared+rediss"]  # noqa: RUF012 (limits fixes the type)

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        # The timeouts end the asking threads; without more options redis-py tries once (`from_url` sets no retries).
        self._redis = RedisStorage(
            uri.removeprefix("shared+"), key_prefix=PREFIX, socket_timeout=DEADLINE, socket_connect_timeout=DEADLINE
        )
        self._leaving, self._away = threading.Lock(), False

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count a request, and return whether it is within the limit; no more than DEADLINE late."""
        shared = self._ask(partial(_acquire, RedisStorage, self._redis, key, limit, expiry, amount))
        return shared is not False and super().acquire_entry(key, limit, expiry, amount)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """Return when the window began, and how many came in it."""
        shared = self._ask(partial(self._redis.get_moving_window, key, limit, expiry))
        return shared or super().get_moving_window(key, limit, expiry)

    def _ask(self, question: Callable[[], T]) -> T | None:
        if self._away:
            return None
        try:
            return call_with_timeout(DEADLINE, question)
        except Exception as error:  # noqa: BLE001 (whatever it is, the visitor's request goes on)
            self._leave(type(error).__name__)
            return None

    def _leave(self, why: str) -> None:
        with self._leaving:
            if self._away:
                return
            threading.Thread(target=self._come_back, name="redis", daemon=True).start()
            self._away = True
        logger.warning("Redis does not count (%s): until it is back, each process limits for itself.", why)

    def _come_back(self) -> None:
        time.sleep(PAUSE)
        while not self._counts():
            time.sleep(PAUSE)
        self._away = False
        logger.warning("Redis counts again: the limits hold for all processes together.")

    def _counts(self) -> bool:
        # A count like any other: a full Redis, and a replica that may not be written, would answer a PING.
        with suppress(Exception):
            self._redis.acquire_entry("is-redis-back", limit=100, expiry=1)
            return True
        return False


def _acquire(kind: type[S], storage: S, key: str, limit: int, expiry: int, amount: int) -> bool:
    """Count a request as a kind of storage does, but let no window be full of moments that are still to come.

    limits goes by the wall clock: what one that was a day ahead has counted would keep a client out for a day.
    """
    count = partial(kind.acquire_entry, storage, key, limit, expiry, amount)
    if count():
        return True
    began, _ = kind.get_moving_window(storage, key, limit, expiry)
    if began < time.time() + CLOCKS_DIFFER:
        return False
    storage.clear(key)
    return count()
