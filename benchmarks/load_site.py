"""The site under load: gunicorn, PostgreSQL, Redis, Celery and an SMTP server, with the settings of production.

All limits are on: every visitor comes from an address of their own, as behind a proxy.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from secrets import token_urlsafe

import psutil
import psycopg

from benchmarks.processes import CELERY, free_port, gunicorn, running, wait_for_port
from benchmarks.sink import Sink, smtp_sink
from benchmarks.stores import add_users, application, postgresql, temporary_folder
from pwreset.passwords.hashing import make_password

PASSWORD = "seven green lanterns drift"
ACCOUNTS = {"known": 60_000, "member": 2_000, "forgetful": 10_000}  # how many accounts there are for each kind of visit
# Random choice would request six resets for one address in one run of five, and the sixth email waits for an hour.
STEP = 7919  # has no divisor in common with the number of known addresses
DRAINED_WITHIN = 180.0  # seconds; a deferred request waits for a minute
# Why a row is still there, without its address.
ROWS = """SELECT format('%s, requested %s s ago, due in %s s, leased: %s, attempts: %s, %s', kind,
    round(extract(epoch FROM now() - created_at)), round(extract(epoch FROM run_after - now())), leased, attempts,
    coalesce(failure, 'no failure')) FROM outbox ORDER BY id"""


def known_address(number: int) -> str:
    """Return the address of an account; no other number below 60,000 returns the same."""
    return f"known.{number * STEP % ACCOUNTS['known']}@example.com"


@dataclass
class LoadSite:
    """A site that runs.

    Args:
        url: its origin.
        sink: where its emails arrive.
        database: the URL.
        processes: by name.
    """

    url: str
    sink: Sink
    database: str
    processes: dict[str, psutil.Popen]

    def memory(self) -> dict[str, int]:
        """Return the resident memory of each process and its children in bytes."""
        families = {name: [process, *process.children(recursive=True)] for name, process in self.processes.items()}
        return {name: sum(member.memory_info().rss for member in family) for name, family in families.items()}

    def events(self) -> dict[str, int]:
        """Return the number of security events of each kind."""
        with psycopg.connect(self.database) as connection:
            return dict(connection.execute("SELECT kind, count(*) FROM security_events GROUP BY kind").fetchall())

    def rows_left(self) -> list[str]:
        """Wait until the outbox is empty, for at most DRAINED_WITHIN, and describe each row that is left."""
        end = time.monotonic() + DRAINED_WITHIN
        while (rows := self._rows()) and time.monotonic() < end:
            time.sleep(1)
        return rows

    def _rows(self) -> list[str]:
        with psycopg.connect(self.database) as connection:
            return [row for (row,) in connection.execute(ROWS)]


@contextmanager
def load_site() -> Iterator[LoadSite]:
    """Run the site, with all accounts."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        sink = stack.enter_context(smtp_sink(folder))
        database = stack.enter_context(postgresql(folder))
        with application(folder, database) as app, app.app_context():
            add_users(_addresses(), make_password(PASSWORD))
        port = free_port()
        redis = f"redis://127.0.0.1:{port}/0"
        stack.enter_context(running(folder, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""))
        wait_for_port(port)
        settings = sink.settings() | database | {"SECRET_KEY": token_urlsafe(48), "REDIS_URL": redis}
        settings |= {"CELERY_BROKER_URL": redis, "TRUSTED_PROXIES": "1"}
        url, web = stack.enter_context(gunicorn(folder, settings))
        settings["PUBLIC_URL"] = url
        worker = stack.enter_context(running(folder, *CELERY, "worker", "--concurrency", "2", **settings))
        beat = stack.enter_context(running(folder, *CELERY, "beat", **settings))
        processes = {"gunicorn": web, "Celery's worker": worker, "Celery's beat": beat}
        yield LoadSite(url, sink, database["DATABASE_URL"], processes)


def _addresses() -> list[str]:
    return [f"{kind}.{number}@example.com" for kind, size in ACCOUNTS.items() for number in range(size)]
