"""What delivers again and again: the thread inside a web process, `flask outbox run`, and a ring from Celery.

Decides how often to look and how long to leave a failing server alone. It polls and is not woken by a request: work
for a known address right behind the response could be measured by the next request. It must be started after a fork.
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

LONGEST_PAUSE = 30.0  # seconds between two tries of a server that takes no mail
logger = logging.getLogger(__name__)


class Worker:
    """Delivers until stopped.

    Args:
        app: whose outbox.
        stopping: set from outside to end it.
        should_stop: asked before each mail instead, where an event can't be set.
    """

    def __init__(
        self, app: Flask, stopping: threading.Event | None = None, should_stop: Callable[[], bool] | None = None
    ) -> None:
        self.app = app
        self._stopping = stopping or threading.Event()
        self._should_stop = should_stop or self._stopping.is_set
        self._thread: threading.Thread | None = None
        self._failures, self._paused_until = 0, float("-inf")
        self._time_to_warn, self._time_to_report = at_most_every(60), at_most_every(60)
        self._time_to_recall, self._time_to_purge = at_most_every(10), at_most_every(3600)

    def start(self) -> None:
        """Run in a thread of this process, ended in order when the process ends."""
        # A daemon, since the interpreter joins other threads before it calls what atexit holds.
        self._thread = threading.Thread(target=self.run, name="outbox", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End after the mail under way; what is not sent by the deadline stays leased and comes again."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(self.app.config["EMAIL_DEADLINE"] + 1)

    def run(self) -> None:
        """Deliver, wait, and again, until stopped."""
        while not self._stopping.is_set():
            self._stopping.wait(self._pass())

    def ring(self) -> None:
        """Deliver what is due, unless a failing server is to be left alone for a while: for who is called from outside.

        Rings come every second, from whatever calls; how often a failing server is tried again is decided here.
        """
        if time.monotonic() >= self._paused_until and not self._should_stop():
            pause = self._pass()
            self._paused_until = time.monotonic() + (pause if self._failures else 0)

    def _pass(self) -> float:
        """Deliver what is due and return how long to wait, in seconds."""
        try:
            with self.app.app_context():
                self._recall()
                _, problem = deliver_pending(self._should_stop)
                self._purge()
        except UNAVAILABLE as error:  # a database that is away comes back, and finds the thread
            problem = f"the database does not answer ({type(error).__name__})"
        except Exception as error:  # noqa: BLE001 (the next pass may go well, and mail must not end for good)
            problem = f"a mistake in the program ({type(error).__name__})"
            self._report(error)
        if problem is None:
            self._failures = 0
            return float(self.app.config["OUTBOX_POLL_SECONDS"])
        self._failures = min(self._failures + 1, 5)  # 2.0**5 is past the longest pause, and 2.0**1024 would raise
        self._warn(problem)
        return min(2.0**self._failures, LONGEST_PAUSE)

    def _report(self, error: Exception) -> None:
        if self._time_to_report():
            # Where it happened, and not what it said, which may repeat an address.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("Delivery failed: %s\n%s", type(error).__name__, where)

    def _warn(self, problem: str) -> None:
        if self._time_to_warn():
            logger.warning("No mail is being sent, and all of it waits: %s", problem)

    def _recall(self) -> None:
        if self._time_to_recall() and outbox.repair_future_dates():
            logger.warning("The clock was set back; mail that waited for its old time is due now")

    def _purge(self) -> None:
        if self._time_to_purge():
            purge()


def stop_on_signals() -> threading.Event:
    """Return an event that Ctrl-C and SIGTERM set, so that a loop in the main thread ends between two mails."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # From another thread: the handler may interrupt the very wait whose lock `set` would take.
        signal.signal(number, lambda _number, _frame: threading.Thread(target=stopping.set).start())
    return stopping
