"""Another process locks SQLite: every request gets the same answer, and accepted ones are emailed once."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.clock import PATIENCE
from tests.support.databases import on_sqlite
from tests.support.fault_site import OpenSite
from tests.support.outages import LONGEST_PAUSE, SEEN, answered_in, email_being_sent
from tests.support.scripted_smtp import ScriptedServer

SECONDS = 30
LONGEST_WAIT = 7.0  # seconds: a request waits 5 for a lock, and the machine may be busy
pytestmark = pytest.mark.timeout(300)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let nobody else write while the block runs."""
    with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@on_sqlite
def test_a_lock_of_half_a_minute_is_a_503_for_everybody_and_brings_no_second_copy(
    open_site: OpenSite, mail: ScriptedServer
) -> None:
    site = open_site(mail)
    site.statuses, site.soon = {302, 503}, LONGEST_WAIT
    site.people.request_resets(2, again=1)
    with email_being_sent(site), lock(site.folder / "pwreset.db"):
        # The last one that asks waits for five more, and the second of its pair too.
        assert answered_in(site, SECONDS - 5) == {503}
    site.repaired()
    assert answered_in(site, 1) == {302}
    site.settle(LONGEST_PAUSE)
    done = "`BEGIN EXCLUSIVE` in another process, a mail under way, then `ROLLBACK`"
    site.check("SQLite locked for 30 s", done, f"after 5 s {SEEN}")
