"""The site whose answers are timed: gunicorn with an SMTP server, on a database that this program fills.

It has the settings of production, every limit on, and one process, so that the worker's thread and the requests
compete. It gets a processor core of its own if there are two, so that the kernel doesn't move it.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle
from secrets import token_hex, token_urlsafe
from time import monotonic, sleep
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flask import Flask
from sqlalchemy import func, select, update

from benchmarks.processes import OUTBOX_RUN, gunicorn, running
from benchmarks.sink import smtp_sink
from benchmarks.stores import STORES, add_users, application, temporary_folder
from pwreset.accounts import login_throttle
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage, User
from pwreset.passwords.hashing import make_password

SAME = "the same process"
ANOTHER = "another process"  # the one that delivers: the one that answers, or another one
DRAINED_WITHIN = 600.0  # seconds
# The networks that send requests, in turn: at 300 a second each sends 18 a minute, which is below all limits.
NETWORKS = cycle([f"10.0.{number >> 8}.{number & 255}" for number in range(1000)])
# Settings with which two failed logins throttle a network.
THROTTLED_SOON = {"LOGIN_FREE_FAILURES": "1", "LOGIN_FIRST_WAIT": "900"}


class AddressKind(StrEnum):
    """What may be behind an address."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    DEACTIVATED = "deactivated"
    UNFINISHED = "never finished"
    COOLING_DOWN = "emailed just now"


class Probe(NamedTuple):
    """One request about an address, and the network that it comes from."""

    address: str
    network: str


Probes = dict[AddressKind, Iterator[Probe]]


@dataclass(frozen=True)
class TimingSite:
    """A site that runs.

    Args:
        port: on loopback.
        app: an application in this process, on the same database.
    """

    port: int
    app: Flask

    def probes(self, numbers: dict[AddressKind, int], *, throttled: bool = False) -> Probes:
        """Create addresses of each kind, with their accounts, for one request each.

        All have the same length and are random, so that only the account can make a difference.

        Args:
            numbers: how many of each kind.
            throttled: whether the login throttle rejects the network of each.
        """
        with self.app.app_context():
            probes = {kind: _probes(kind, number) for kind, number in numbers.items()}
            for probe in (probe for kind in probes.values() for probe in kind if throttled):
                for _ in range(2):
                    login_throttle.count_attempt(*probe)
        return {kind: iter(listed) for kind, listed in probes.items()}

    def wait_until_nothing_is_due(self) -> None:
        """Wait for the emails that one measurement caused, which would disturb the next.

        Raises:
            TimeoutError: if some are still due after DRAINED_WITHIN.
        """
        end = monotonic() + DRAINED_WITHIN
        while self._due():
            if monotonic() > end:
                raise TimeoutError("Emails are still due.")
            sleep(0.02)

    def _due(self) -> int:
        with self.app.app_context():
            return db.session.scalar(select(func.count()).where(OutboxMessage.run_after <= utcnow())) or 0


def _probes(kind: AddressKind, number: int) -> list[Probe]:
    probes = [Probe(f"{token_hex(8)}@example.com", next(NETWORKS)) for _ in range(number)]
    if kind is not AddressKind.UNKNOWN:
        _add_accounts(kind, (probe.address for probe in probes))
    return probes


def _add_accounts(kind: AddressKind, addresses: Iterable[str]) -> None:
    newest = db.session.scalar(select(func.max(User.id))) or 0
    add_users(addresses, make_password(None if kind is AddressKind.UNFINISHED else "seven green lanterns drift"))
    changes: dict[AddressKind, dict[str, Any]] = {
        AddressKind.DEACTIVATED: {"is_active": False},
        AddressKind.COOLING_DOWN: {"cooldown_started_at": utcnow()},
    }
    if kind in changes:
        db.session.execute(update(User).where(User.id > newest).values(**changes[kind]))
        db.session.commit()


@contextmanager
def timing_site(worker: str, **settings: object) -> Iterator[TimingSite]:
    """Run a site.

    Args:
        worker: SAME or ANOTHER.
        settings: beside those of production.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        sink = stack.enter_context(smtp_sink(folder))
        database = stack.enter_context(STORES["SQLite"](folder)) | {"SECRET_KEY": token_urlsafe(48)}
        # An hour between two emails: an account that cools down at the first request still does so at the last.
        common = {"TRUSTED_PROXIES": 1, "WEB_CONCURRENCY": 1, "EMAIL_INTERVAL": 3600}
        common |= sink.settings() | database | settings
        app = stack.enter_context(application(folder, database | THROTTLED_SOON))
        with core(-1):
            web = common | {"OUTBOX_WORKER": "thread" if worker == SAME else "none"}
            url, _ = stack.enter_context(gunicorn(folder, web))
            if worker == ANOTHER:
                stack.enter_context(running(folder, *OUTBOX_RUN, **common, PUBLIC_URL=url))
        stack.enter_context(core(0))
        yield TimingSite(urlsplit(url).port or 0, app)


@contextmanager
def core(which: int) -> Iterator[None]:
    """Keep this thread, and the processes it starts meanwhile, on one of its cores, if the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[which]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
