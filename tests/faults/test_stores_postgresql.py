"""PostgreSQL stops, crashes or freezes: every request gets a page or a 503, and nothing is lost."""

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from pwreset.monitoring.health import DEADLINE as HEALTH_DEADLINE
from tests.support.app import migrate
from tests.support.brokers import Redis
from tests.support.celery_site import CelerySite
from tests.support.clock import until
from tests.support.fault_site import OpenSite
from tests.support.outages import LONGEST_PAUSE, SEEN, answered_in, email_being_sent
from tests.support.postgresql import FAST, IMMEDIATE, PostgreSQLServer, new_folder, running_in
from tests.support.scripted_smtp import ScriptedServer
from tests.support.servers import Browser, Gunicorn, OutboxRun

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgreSQLServer]:
    """Return a migrated and empty database on a server of this test's own."""
    folder = new_folder()
    with running_in(folder) as server:
        migrate(tmp_path, **server.settings)
        yield server
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "done"),
    [(FAST, "`pg_ctl stop -m fast`"), (IMMEDIATE, "`pg_ctl stop -m immediate`")],
    ids=["fast", "immediate"],
)
@pytest.mark.parametrize("worker", [{}, {"OUTBOX_WORKER": "none"}], ids=["thread", "command"])
def test_a_server_that_stops_is_a_503_for_everybody_until_it_is_back(
    open_site: OpenSite, mail: ScriptedServer, database: PostgreSQLServer, how: signal.Signals, done: str, worker
) -> None:
    servers = (Gunicorn, OutboxRun) if worker else (Gunicorn,)
    site = open_site(mail, servers, OUTBOX_LEASE_SECONDS=20, **worker)  # what was just claimed comes back after it
    site.statuses = {302, 503}
    site.people.request_resets(2, again=1)
    with email_being_sent(site):
        database.stop(how)
        assert answered_in(site, 8) == {503}
    database.start()
    site.repaired()
    assert answered_in(site, 1) == {302}
    site.settle(LONGEST_PAUSE)
    site.check("PostgreSQL stopped", f"{done}, a mail under way; started 8 s later", SEEN)


def test_celerys_workers_go_on_with_a_server_that_was_stopped_under_them(
    open_site: OpenSite, mail: ScriptedServer, database: PostgreSQLServer
) -> None:
    with Redis() as broker:
        celery = CelerySite(partial(open_site, OUTBOX_LEASE_SECONDS=20), mail, broker.url)
        celery.wait_until_emails_are_sent()
        celery.site.statuses = {302, 503}
        before = celery.lines()
        with email_being_sent(celery.site):
            database.stop()
            assert answered_in(celery.site, 8) == {503}
        database.start()
        celery.site.repaired()
        assert answered_in(celery.site, 1) == {302}
        celery.site.settle(LONGEST_PAUSE)
        lines = tuple(after - number for after, number in zip(celery.lines(), before, strict=True))
        celery.check("PostgreSQL stopped", "`pg_ctl stop -m fast`, a mail under way; started 8 s later", lines, SEEN)


def test_a_server_that_freezes_holds_answers_and_email_back_and_loses_none(
    open_site: OpenSite, mail: ScriptedServer, database: PostgreSQLServer
) -> None:
    site = open_site(mail, (Gunicorn, OutboxRun), OUTBOX_WORKER="none")
    site.statuses, site.soon = {302, 503}, 30.0
    site.people.request_resets(2, again=1)
    with email_being_sent(site), ExitStack() as crowd:
        database.freeze()
        for _ in range(6):  # the first ones hold the connections that are open
            crowd.enter_context(site.people.requesting_resets())
        until(lambda: {answer.known for answer in site.people.answers if answer.status == 503} == {True, False}, "503s")
        before = time.monotonic()
        assert Browser(site.people.server).get("/healthz").status == 503
        assert time.monotonic() - before < HEALTH_DEADLINE + 5  # its own wait, and that of a busy machine
        database.thaw()
        site.repaired()
    assert answered_in(site, 1) == {302}
    site.settle(LONGEST_PAUSE)
    seen = "503 after 5 s to who needed a new connection, the others were answered later; the mail under way came once"
    site.check("PostgreSQL frozen", "SIGSTOP to all of its processes, a mail under way; SIGCONT 10 s later", seen)
