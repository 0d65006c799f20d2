"""Counts the requests that a limit refused, without a write for each.

Decides that refusals, which may come in floods, are summed up for a second and then written by a timer's thread: a
flood must cost the database no more than a trickle. What is not written when a process is killed is lost, at most a
second's worth.
"""

import threading
from collections import Counter as Tally

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from pwreset import counters
from pwreset.counters import Counted
from pwreset.extensions import db

PAUSE = 1.0  # seconds


class Refusals:
    """The refusals of one process that are not written yet.

    Args:
        app: whose counters.
    """

    def __init__(self, app: Flask) -> None:
        self._app, self._lock = app, threading.Lock()
        self._pending: Tally[str] = Tally()
        self._timer: threading.Timer | None = None

    def add(self, endpoint: str) -> None:
        """Count one; it is in the database a second later."""
        with self._lock:
            self._pending[endpoint] += 1
            if self._timer is None:
                self._timer = threading.Timer(PAUSE, self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Write what is pending; a database that is away gets it with the next ones."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            pending, self._pending, self._timer = self._pending, Tally(), None
        if not pending:
            return
        try:
            with self._app.app_context():
                for endpoint, number in sorted(pending.items()):
                    counters.add(Counted.LIMITED, endpoint, number)
                db.session.commit()
        except SQLAlchemyError:
            with self._lock:
                self._pending += pending


def init_app(app: Flask) -> None:
    """Count the refusals of an application."""
    app.extensions["pwreset_refusals"] = Refusals(app)
