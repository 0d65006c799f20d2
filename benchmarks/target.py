"""The site whose answers are timed: a real gunicorn with a mail server, on a database that this program fills.

Decides its settings: those of production, every limit on, and one process, so that a worker's thread and the requests
can't avoid each other. It has a processor core for itself where there are two, so that it is not moved about.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from secrets import token_urlsafe

from flask import Flask
from sqlalchemy import func, select

from benchmarks.crowd import WAITS, Question, Sort, let_wait, questions
from benchmarks.processes import AS_IN_PRODUCTION, OutboxRun, running
from benchmarks.sink import Sink
from benchmarks.stores import STORES, application, own_folder
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from tests.support.clock import until
from tests.support.servers import Gunicorn

SAME, ANOTHER = "the same process", "another process"  # as the one that answers: where mail is delivered
DRAINED_WITHIN = 600.0  # seconds


@dataclass(frozen=True)
class Target:
    """A site that runs.

    Args:
        port: on loopback.
        app: an application of this process, on the same database.
    """

    port: int
    app: Flask

    def crowd(self, sorts: dict[Sort, int], *, waits: bool = False) -> dict[Sort, Iterator[Question]]:
        """Make so many addresses of each sort, each to be asked about once.

        Args:
            sorts: and how many of each.
            waits: whether the network that asks has failed to log in so often that it must wait.
        """
        with self.app.app_context():
            crowd = {sort: questions(sort, number) for sort, number in sorts.items()}
            for asked in crowd.values() if waits else ():
                let_wait(asked)
        return {sort: iter(asked) for sort, asked in crowd.items()}

    def wait_until_nothing_is_due(self) -> None:
        """Let the mail that one measurement brings not disturb the next."""
        until(lambda: not self._due(), "an outbox with nothing due", DRAINED_WITHIN)

    def _due(self) -> int:
        with self.app.app_context():
            return db.session.scalar(select(func.count()).where(OutboxMessage.run_after <= utcnow())) or 0


@contextmanager
def target(store: str, worker: str, **settings: object) -> Iterator[Target]:
    """Start a site, and take it away.

    Args:
        store: a name of STORES.
        worker: SAME or ANOTHER.
        settings: beside those of production.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(own_folder())
        sink = stack.enter_context(Sink(folder))
        database = stack.enter_context(STORES[store](folder)) | {"SECRET_KEY": token_urlsafe(48)}
        common = AS_IN_PRODUCTION | sink.settings() | database | {"SSL_CERT_FILE": sink.certificate}
        # An hour between two mails: who was mailed before the first question is throttled at the last one too.
        common |= {"TRUSTED_PROXIES": 1, "WEB_CONCURRENCY": 1, "EMAIL_INTERVAL": 3600} | settings
        web = Gunicorn(folder, **common, OUTBOX_WORKER="thread" if worker == SAME else "none")
        others = [] if worker == SAME else [OutboxRun(folder, **common, PUBLIC_URL=web.url)]
        app = stack.enter_context(application(folder, database | WAITS))
        with core(-1):
            stack.enter_context(running(web, *others))
        stack.enter_context(core(0))
        yield Target(web.port, app)


@contextmanager
def core(which: int) -> Iterator[None]:
    """Keep this thread, and what it starts meanwhile, on one of the cores that it has, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    had = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(had)[which]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, had)
