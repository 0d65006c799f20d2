"""The worker, which delivers repeatedly: as a thread of a web process, in `flask outbox run`, or for Celery's tasks.

Decides how often to poll and how long to wait after a mail server failed. A request does not wake it: the next request
could measure the work for a known address right after the response. It must be started after a fork.
"""

import atexit
import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable

from flask import Flask

from pwreset import outbox
from pwreset.clock import at_most_every
from pwreset.database import UNAVAILABLE
from pwreset.outbox.delivery import deliver_pending
from pwreset.outbox.retention import purge

LONGEST_PAUSE = 30.0  # seconds between two tries of a mail server that failed
logger = logging.getLogger(__name__)


class Worker:
    """Delivers until stopped.

    Args:
        app: the application whose outbox is delivered.
        stopping: an event that ends the worker when it is set.
        should_stop: called before each email, instead of `stopping`, if an event can't be used.
    """

    def __init__(
        self, app: Flask, stopping: threading.Event | None = None, should_stop: Callable[[], bool] | None = None
    ) -> None:
        self.app = app
        self._stopping = stopping or threading.Event()
        self._should_stop = should_stop or self._stopping.is_set
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._paused_until = float("-inf")
        self._warning_is_due = at_most_every(60)
        self._error_is_due = at_most_every(60)
        self._repair_is_due = at_most_every(10)
        self._purge_is_due = at_most_every(3600)

    def start(self) -> None:
        """Run in a thread of this process, and stop it when the process ends."""
        # A daemon, because the interpreter joins other threads before it runs the atexit functions.
        self._thread = threading.Thread(target=self.run, name="outbox", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Stop after the current email; if it is not sent by the deadline, its row stays leased for a later attempt."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(self.app.config["EMAIL_DEADLINE"] + 1)

    def run(self) -> None:
        """Deliver and wait in turn until stopped."""
        while not self._stopping.is_set():
            self._stopping.wait(self._pass())

    def deliver(self) -> None:
        """Deliver what is due, except in the pause after a mail server failed; for a caller with its own schedule."""
        if time.monotonic() >= self._paused_until and not self._should_stop():
            pause = self._pass()
            self._paused_until = time.monotonic() + (pause if self._failures else 0)

    def _pass(self) -> float:
        """Deliver what is due and return how long to wait, in seconds."""
        problem = self._deliver_pending()
        if problem is None:
            self._failures = 0
            return float(self.app.config["OUTBOX_POLL_SECONDS"])
        self._failures = min(self._failures + 1, 5)  # 2.0**5 exceeds the longest pause, and 2.0**1024 would raise
        if self._warning_is_due():
            logger.warning("No email is sent, and all emails wait: %s", problem)
        return min(2.0**self._failures, LONGEST_PAUSE)

    def _deliver_pending(self) -> str | None:
        try:
            with self.app.app_context():
                self._repair_future_dates()
                _, problem = deliver_pending(self._should_stop)
                if self._purge_is_due():
                    purge()
                return problem
        except UNAVAILABLE as error:  # the database may come back, and the thread must still run
            return f"the database does not answer ({type(error).__name__})"
        except Exception as error:  # noqa: BLE001 (the next pass may succeed, and delivery must not end for good)
            self._log_error(error)
            return f"an error in the program ({type(error).__name__})"

    def _repair_future_dates(self) -> None:
        if self._repair_is_due() and outbox.repair_future_dates():
            logger.warning("The clock was set back; emails that waited for the old time are due now")

    def _log_error(self, error: Exception) -> None:
        if self._error_is_due():
            # Only the traceback, because the message may contain an address.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("Delivery failed: %s\n%s", type(error).__name__, where)


def stop_on_signals() -> threading.Event:
    """Return an event that Ctrl-C and SIGTERM set, so that a loop in the main thread ends between two emails."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # In another thread: the handler may interrupt `wait`, which has the lock that `set` needs.
        signal.signal(number, lambda _number, _frame: threading.Thread(target=stopping.set).start())
    return stopping
