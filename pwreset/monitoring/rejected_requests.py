"""Counts the requests that a limit refused, without a write for each.

Decides that refusals, which may come in floods, are summed up for a second and then written by a timer's thread: a
flood must cost the database no more than a trickle. Each client's are an event once a minute. What is not written when
a process is killed is lost, at most a second's worth.
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

PAUSE, MINUTE = 1.0, 60.0  # seconds


class RejectedRequests:
    """The refusals of one process that are not written yet.

    Args:
        app: whose counters.
    """

    def __init__(self, app: Flask) -> None:
        self._app, self._lock = app, threading.Lock()
        self._pending: Tally[str] = Tally()
        self._clients: dict[str, RequestInfo] = {}
        self._told: dict[str, float] = {}
        self._timer: threading.Timer | None = None

    def add(self, endpoint: str, client: RequestInfo) -> None:
        """Count one; it is in the database a second later."""
        with self._lock:
            self._pending[endpoint] += 1
            self._clients.setdefault(network_of(client.address), client)
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
            clients = self._clients_to_tell_of()
        if not pending:
            return
        try:
            with self._app.app_context():
                for client in clients:
                    events.record(Kind.LIMITED, None, client)
                for endpoint, number in sorted(pending.items()):
                    counters.add(Counted.LIMITED, endpoint, number)
                db.session.commit()
        except SQLAlchemyError:
            with self._lock:
                self._pending += pending

    def _clients_to_tell_of(self) -> list[RequestInfo]:
        now, clients = time.monotonic(), self._clients
        self._clients = {}
        self._told = {network: at for network, at in self._told.items() if at > now - MINUTE}
        new = {network: client for network, client in clients.items() if network not in self._told}
        self._told |= dict.fromkeys(new, now)
        return list(new.values())
