"""Counts the requests that a rate limit rejected, without a write for each.

A flood of rejected requests must not add load to the database. A thread writes their sum once a second, and records one
event a minute for each network. If a process is killed, the counts of its last second are lost.
"""

import threading
import time
from collections import Counter as Tally

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from pwreset.accounts import events
from pwreset.accounts.events import Kind
from pwreset.extensions import db
from pwreset.monitoring import counters
from pwreset.monitoring.counters import Counted
from pwreset.request_info import RequestInfo, network_of

PAUSE = 1.0  # seconds
MINUTE = 60.0  # seconds


class RejectedRequests:
    """The rejected requests of one process that are not yet written.

    Args:
        app: the application whose database the counts are written to.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._counts: Tally[str] = Tally()
        self._request_infos: dict[str, RequestInfo] = {}  # by network
        self._recorded_at: dict[str, float] = {}
        self._timer: threading.Timer | None = None

    def add(self, endpoint: str, request_info: RequestInfo) -> None:
        """Count one request, which is in the database a second later."""
        with self._lock:
            self._counts[endpoint] += 1
            self._request_infos.setdefault(network_of(request_info.address), request_info)
            if self._timer is None:
                self._timer = threading.Timer(PAUSE, self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Write the counts; if the database does not answer, they are written with the next ones."""
        with self._lock:
            counts = self._counts
            request_infos = self._pop_new_request_infos()
            self._counts = Tally()
            self._timer = None
        if not counts:
            return
        try:
            with self._app.app_context():
                for request_info in request_infos:
                    events.record(Kind.LIMITED, None, request_info)
                for endpoint, number in sorted(counts.items()):
                    counters.add(Counted.LIMITED, endpoint, number)
                db.session.commit()
        except SQLAlchemyError:
            with self._lock:
                self._counts += counts

    def _pop_new_request_infos(self) -> list[RequestInfo]:
        """Return one request info for each network without a recorded event in the last minute."""
        request_infos = self._request_infos
        self._request_infos = {}
        now = time.monotonic()
        self._recorded_at = {network: at for network, at in self._recorded_at.items() if at > now - MINUTE}
        new = {network: info for network, info in request_infos.items() if network not in self._recorded_at}
        self._recorded_at |= dict.fromkeys(new, now)
        return list(new.values())
