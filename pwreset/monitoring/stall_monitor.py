"""Logs a warning when emails wait and no worker delivers them.

It checks when `/healthz` is requested, a minute after a POST, and again while the queue is stalled. A timer checks in
its own thread, because a request must do the same work for every address. Requests start the timer, because a server
that was started without our gunicorn.conf.py runs no other code of ours.
"""

import logging
import threading

from flask import Flask, Response, current_app, request
from sqlalchemy.exc import SQLAlchemyError

from pwreset.monitoring.queue_status import STALLED_MESSAGE, is_stalled
from pwreset.state import AppState

PAUSE = 61.0  # seconds: a row from the request has been due for a minute then
logger = logging.getLogger(__name__)


def warn_if_stalled() -> bool:
    """Return whether emails wait and no worker delivers them; log it at most once a minute."""
    state: AppState = current_app.extensions["pwreset"]
    stalled = is_stalled()
    if stalled and state.stall_warning_is_due():
        logger.warning(STALLED_MESSAGE)
    return stalled


class StallMonitor:
    """The timer of one process.

    Args:
        app: the application whose outbox is checked.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def after_request(self, response: Response) -> Response:
        """Schedule a check after a POST."""
        if request.method == "POST":
            self.schedule_check()
        return response

    def schedule_check(self) -> None:
        """Start the timer, unless it runs."""
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(PAUSE, self._check)
                self._timer.daemon = True
                self._timer.start()

    def _check(self) -> None:
        with self._lock:
            self._timer = None
        try:
            with self._app.app_context():
                stalled = warn_if_stalled()
        except SQLAlchemyError:  # the pages and /healthz report that
            stalled = True
        if stalled:
            self.schedule_check()


def init_app(app: Flask) -> None:
    """Monitor the outbox of an application that a server runs."""
    app.after_request(StallMonitor(app).after_request)
