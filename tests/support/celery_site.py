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
        url: where the broker is, or the line to it.
        of_beat: settings of beat alone.
    """

    def __init__(self, open_site: OpenSite, mail: ScriptedServer, url: str, **of_beat: object) -> None:
        self.site: FaultSite = open_site(mail, CELERY_BROKER_URL=url)
        self.worker, self.beat = self._launch(CeleryWorker), self._launch(CeleryBeat, **of_beat)

    def wait_until_mail_flows(self) -> None:
        """Wait for worker and beat, and until what people ask for now is mailed."""
        until(lambda: self.worker.ready() and self.beat.ready(), "a worker and beat that have found the broker")
        self.site.remember_processes()
        self.ask_and_wait()

    def lose_the_broker(self, broken: Callable[[], None], repaired: Callable[[], None]) -> tuple[int, int]:
        """Break something for a while, under the eyes of people who ask; email must flow again, and go on flowing.

        Returns:
            How many lines worker and beat have logged of it.
        """
        worker, beat = self.lines()
        with self.site.people.asking(1):
            broken()
            time.sleep(OUTAGE)
            repaired()
            self.site.repaired()
        self.site.settle(SOON)
        self.ask_and_wait()
        worker_after, beat_after = self.lines()
        return worker_after - worker, beat_after - beat

    def check(self, fault: str, done: str, lines: tuple[int, int], seen: str = WAITED) -> None:
        """Hold what must hold after every fault, that the logs were not flooded, and that the password is in none."""
        worker, beat = lines
        assert worker <= 15, self.worker.log()
        assert beat <= 3, self.beat.log()
        assert SECRET not in self.site.log()
        self.site.check(fault, done, f"{seen}; the log of the worker grew by {worker} lines and that of beat by {beat}")

    def ask_and_wait(self) -> None:
        """Let people ask, and wait until they have their email, twice."""
        for _ in range(2):
            self.site.people.ask(1)
            until(lambda: not self.site.tables.waiting(), "an outbox in which nothing waits")

    def _launch(self, kind: type[CeleryWorker], **settings: object) -> CeleryWorker:
        public = self.site.people.server.own_settings()  # links lead to the site that people visit, signed with its key
        server = kind(self.site.folder, **{**public, **self.site.settings, **settings})
        self.site.servers[server] = set()
        return server.launch()

    def lines(self) -> tuple[int, int]:
        """How many lines worker and beat have logged, beside one for each mail."""
        worker, beat = (
            [line for line in server.lines() if ": Email " not in line] for server in (self.worker, self.beat)
        )
        return len(worker), len(beat)
