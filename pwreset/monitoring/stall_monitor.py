"""Says in the log of a server that the mail people ask for is delivered by nobody.

Decides when to look: when `/healthz` is asked, a minute after something was posted, and again while it is so. A timer's
thread looks and never the request, which must do the same for every address. A server that was not started with our
gunicorn.conf.py runs none of our code but the requests, so they set the timer.
"""

import logging
import threading

from flask import Flask, Response, current_app, request
from sqlalchemy.exc import SQLAlchemyError

from pwreset.clock import at_most_every
from pwreset.monitoring.queue_status import STALLED_MESSAGE, is_stalled

PAUSE = 61.0  # seconds: what was posted has been due for a minute then
logger = logging.getLogger(__name__)


def warn_if_stalled() -> bool:
    """Return whether mail waits and nobody delivers it; says so in the log, at most once a minute."""
    undelivered = is_stalled()
    if undelivered and current_app.extensions.setdefault("pwreset_time_to_warn", at_most_every(60))():
        logger.warning(STALLED_MESSAGE)
    return undelivered


class StallMonitor:
    """One timer of one process.

    Args:
        app: whose outbox.
    """

    def __init__(self, app: Flask) -> None:
        self._app, self._lock = app, threading.Lock()
        self._timer: threading.Timer | None = None

    def after_request(self, response: Response) -> Response:
        """Set the timer where something was posted, unless it runs."""
        if request.method == "POST":
            self.schedule_check()
        return response

    def schedule_check(self) -> None:
        """Set the timer, unless it runs."""
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(PAUSE, self._look)
                self._timer.daemon = True
                self._timer.start()

    def _look(self) -> None:
        with self._lock:
            self._timer = None
        try:
            with self._app.app_context():
                undelivered = warn_if_stalled()
        except SQLAlchemyError:  # the pages and /healthz tell of that
            undelivered = True
        if undelivered:
            self.schedule_check()


def init_app(app: Flask) -> None:
    """Watch over the mail of an application that is served."""
    app.after_request(StallMonitor(app).after_request)
