"""The state that one application keeps in memory, in `app.extensions["pwreset"]`.

Each process has its own, so nothing that must be shared or survive a restart belongs here.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pwreset.clock import at_most_every
from pwreset.request_info import RequestInfo


class RequestCounter(Protocol):
    """Counts the requests that a rate limit rejected."""

    def add(self, endpoint: str, request_info: RequestInfo) -> None:
        """Count one request."""

    def write(self) -> None:
        """Write the counts that are not in the database yet."""


@dataclass
class AppState:
    """The state of one application in this process.

    Attributes:
        rejected_requests: counts the requests that the rate limits rejected.
        token_generator: the generator passed to `create_app`, or None.
        heartbeat_is_due: whether a worker should record its heartbeat again.
        stall_warning_is_due: whether to log again that no worker delivers emails.
        health_check: the lock of the one thread that waits for the database on behalf of `/healthz`.
        no_pipelining_until: until then (`time.monotonic()`), each SMTP command waits for the reply to the one before.
    """

    rejected_requests: RequestCounter
    token_generator: Any = None
    heartbeat_is_due: Callable[[], bool] = field(default_factory=lambda: at_most_every(5))
    stall_warning_is_due: Callable[[], bool] = field(default_factory=lambda: at_most_every(60))
    health_check: threading.Lock = field(default_factory=threading.Lock)
    no_pipelining_until: float = 0.0
