"""Counts the requests that a rate limit rejected, without a write for each.

Rejections may come in floods, which must cost the database no more than a trickle. A thread writes their sum once a
second, and records one event a minute for each network. If a process is killed, the counts of its last second are lost.
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
        app: whose database.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._counts: Tally[str] = Tally()
        self._clients: dict[str, RequestInfo] = {}  # by network
        self._recorded_at: dict[str, float] = {}
        self._timer: threading.Timer | None = None

    def add(self, endpoint: str, client: RequestInfo) -> None:
        """Count one request, which is in the database a second later."""
        with self._lock:
            self._counts[endpoint] += 1
            self._clients.setdefault(network_of(client.address), client)
            if self._timer is None:
                self._timer = threading.Timer(PAUSE, self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Write what is counted; if the database does not answer, the counts are written with the next ones."""
        with self._lock:
            counts = self._counts
            clients = self._take_new_clients()
            self._counts = Tally()
            self._timer = None
        if not counts:
            return
        try:
            with self._app.app_context():
                for client in clients:
                    events.record(Kind.LIMITED, None, client)
                for endpoint, number in sorted(counts.items()):
                    counters.add(Counted.LIMITED, endpoint, number)
                db.session.commit()
        except SQLAlchemyError:
            with self._lock:
                self._counts += counts

    def _take_new_clients(self) -> list[RequestInfo]:
        """Return one client for each network of which no event was recorded in the last minute."""
        clients = self._clients
        self._clients = {}
        now = time.monotonic()
        self._recorded_at = {network: at for network, at in self._recorded_at.items() if at > now - MINUTE}
        new = {network: client for network, client in clients.items() if network not in self._recorded_at}
        self._recorded_at |= dict.fromkeys(new, now)
        return list(new.values())
