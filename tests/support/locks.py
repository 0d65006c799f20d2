"""Where a test stops a process: a database that nobody else may write to, and a COMMIT whose answer is missing.

It makes moments of microseconds, such as the one between the 250 reply and the commit, long enough to hit.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from sqlalchemy import make_url, text

from tests.support.clock import until
from tests.support.fault_site import FaultSite
from tests.support.servers import Server

LOCK = {"postgresql": "LOCK TABLE {} IN EXCLUSIVE MODE", "sqlite": "BEGIN IMMEDIATE"}
WAITING = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE :statement
"""
INSERT, COMMITTED = b"INSERT INTO outbox", b"COMMIT\0"  # bytes of the protocol


@contextmanager
def locked(site: FaultSite, table: str = "outbox") -> Iterator[None]:
    """Lock a table (on SQLite: the database) against writes while the block runs; reads are possible."""
    with site.tables.engine.connect() as connection:
        connection.exec_driver_sql(LOCK[connection.dialect.name].format(table))
        yield
        connection.rollback()


def wait_until_blocked(site: FaultSite, statement: str) -> None:
    """Wait until a process waits for the lock with a statement that begins so."""
    if site.tables.engine.dialect.name == "sqlite":
        time.sleep(1)  # SQLite does not show which process waits
        return
    query = text(WAITING).bindparams(statement=f"{statement}%")
    until(lambda: site.tables.run(query), f"{statement} that waits for the lock")


class PostgreSQLProxy:
    """A proxy for PostgreSQL that can withhold the reply to a COMMIT.

    Set `withhold` to withhold the next reply after an INSERT into the outbox; `withheld` is set once that has happened.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        there = make_url(url)
        self._there = there.host or "127.0.0.1", there.port or 5432
        self._listener = socket.create_server(("127.0.0.1", 0))
        here = there.set(host="127.0.0.1", port=self._listener.getsockname()[1], query={"sslmode": "disable"})
        self.url = here.render_as_string(hide_password=False)
        self.withhold, self.withheld = threading.Event(), threading.Event()
        self._ends: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._listener, *self._ends):
            with suppress(OSError):  # hung up already
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        with suppress(OSError):  # the end
            while True:
                near, _ = self._listener.accept()
                far, inserted = socket.create_connection(self._there), threading.Event()
                self._ends += [near, far]
                for pass_on, *ends in ((self._ask, near, far), (self._answer, far, near)):
                    threading.Thread(target=pass_on, args=(*ends, inserted), daemon=True).start()

    def _ask(self, near: socket.socket, far: socket.socket, inserted: threading.Event) -> None:
        with suppress(OSError):  # hung up
            while some := near.recv(65536):
                if INSERT in some and self.withhold.is_set():
                    inserted.set()
                far.sendall(some)
            far.shutdown(socket.SHUT_WR)

    def _answer(self, far: socket.socket, near: socket.socket, inserted: threading.Event) -> None:
        with suppress(OSError):  # hung up
            while some := far.recv(65536):
                if COMMITTED in some and inserted.is_set():
                    self.withheld.set()
                    return
                near.sendall(some)


def start_again(site: FaultSite, server: Server) -> None:
    """Start a server that has ended as often as a test likes, and wait until it has as many processes as before."""
    number = len(site.servers[server])
    server.start()
    until(lambda: len(server.processes()) == number, f"{number} processes of {server}")
    site.remember_processes()
