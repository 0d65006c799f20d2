"""Celery's processes for the tests: the worker and beat, as the project's documentation starts them."""

import re
from collections.abc import Sequence

from tests.support.clock import until
from tests.support.servers import Gunicorn, Server

APP = ("-m", "celery", "-A", "pwreset.celery_app")
RELAY = {"EMAIL_HOST": "localhost", "EMAIL_FROM": "accounts@example.com"}


class CeleryWorker(Server):
    """`celery worker`, with two processes that deliver."""

    def command(self) -> Sequence[str]:
        """Return what follows `python`."""
        return *APP, "worker", "--concurrency", "2", *self.options

    def own_settings(self) -> dict[str, object]:
        """Return what a public start asks for, as the web processes have it."""
        public = {"PUBLIC_URL": "http://127.0.0.1:8000", "SECRET_KEY": Gunicorn.secret_key}
        # Celery is right to warn of root, but a test's machine may have nobody else.
        return {**public, **RELAY, "PYTHONWARNINGS": "default,ignore::ResourceWarning,ignore:You're running the worker"}

    def ready(self) -> bool:
        """Whether it listens to the broker."""
        return " ready." in self.log()

    def lines(self) -> list[str]:
        """Return what it logged, without the banner."""
        return [line for line in self.log().splitlines() if re.match(r"\d{4}-\d\d-\d\d |\{", line)]

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self} ended:\n{self.log()}"
        return self.ready()

    def children(self) -> list[int]:
        """Return the processes that deliver."""
        until(lambda: len(self.processes()) > 2, "the processes of the pool")
        return [pid for pid in self.processes() if pid != self.pid]


class CeleryBeat(CeleryWorker):
    """`celery beat`."""

    def command(self) -> Sequence[str]:
        """Return what follows `python`."""
        return *APP, "beat", *self.options

    def ready(self) -> bool:
        """Whether it has started; it logs nothing while all is well."""
        return "beat: Starting" in self.log()
