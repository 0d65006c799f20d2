"""A site whose emails Celery delivers: gunicorn, a worker, beat, and a broker between them."""

import time
from collections.abc import Callable

from tests.support import fault_site as sites
from tests.support.celery import CeleryBeat, CeleryWorker
from tests.support.clock import until
from tests.support.fault_site import FaultSite, OpenSite
from tests.support.redis import SECRET
from tests.support.scripted_smtp import ScriptedServer

OUTAGE = 20  # seconds
SOON = 40  # until worker and beat have found the broker again, and all email is out
WAITED = "all mail went out by itself"
sites.NAMES |= {CeleryWorker: "Celery's worker", CeleryBeat: "beat"}


class CelerySite:
    """A site whose email Celery delivers when its broker has a task.

    Args:
        open_site: the fixture.
        email: the mail server.
        url: of the broker, or of a proxy in front of it.
        of_beat: settings of beat alone.
    """

    def __init__(self, open_site: OpenSite, mail: ScriptedServer, url: str, **of_beat: object) -> None:
        self.site: FaultSite = open_site(mail, CELERY_BROKER_URL=url)
        self.worker, self.beat = self._launch(CeleryWorker), self._launch(CeleryBeat, **of_beat)

    def wait_until_emails_are_sent(self) -> None:
        """Wait for worker and beat, and until new requests are emailed."""
        until(lambda: self.worker.ready() and self.beat.ready(), "a worker and beat that have found the broker")
        self.site.remember_processes()
        self.request_and_wait()

    def lose_the_broker(self, broken: Callable[[], None], repaired: Callable[[], None]) -> tuple[int, int]:
        """Break something for a while, during which visitors request resets; afterwards emails must be sent again.

        Returns:
            How many lines worker and beat have logged about it.
        """
        worker, beat = self.lines()
        with self.site.people.requesting_resets(1):
            broken()
            time.sleep(OUTAGE)
            repaired()
            self.site.repaired()
        self.site.settle(SOON)
        self.request_and_wait()
        worker_after, beat_after = self.lines()
        return worker_after - worker, beat_after - beat

    def check(self, fault: str, done: str, lines: tuple[int, int], seen: str = WAITED) -> None:
        """Check what is true after every fault, that the logs are short, and that no log contains the password."""
        worker, beat = lines
        assert worker <= 15, self.worker.log()
        assert beat <= 3, self.beat.log()
        assert SECRET not in self.site.log()
        self.site.check(fault, done, f"{seen}; the log of the worker grew by {worker} lines and that of beat by {beat}")

    def request_and_wait(self) -> None:
        """Let visitors request resets, and wait until the emails are sent, twice."""
        for _ in range(2):
            self.site.people.request_resets(1)
            until(lambda: not self.site.tables.waiting(), "an outbox in which nothing waits")

    def _launch(self, kind: type[CeleryWorker], **settings: object) -> CeleryWorker:
        public = self.site.people.server.own_settings()  # links lead to the site that people visit, signed with its key
        server = kind(self.site.folder, **{**public, **self.site.settings, **settings})
        self.site.servers[server] = set()
        return server.launch()

    def lines(self) -> tuple[int, int]:
        """How many lines worker and beat have logged, beside one for each email."""
        worker, beat = (
            [line for line in server.lines() if ": Email " not in line] for server in (self.worker, self.beat)
        )
        return len(worker), len(beat)
