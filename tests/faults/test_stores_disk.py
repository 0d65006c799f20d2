"""A full disk: every request gets the same answer, and accepted ones are emailed once there is space again."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import migrate
from tests.support.clock import until
from tests.support.databases import Database, SQLite
from tests.support.disks import SmallDisk
from tests.support.fault_site import NO_EMAIL_IS_SENT, OpenSite
from tests.support.outages import LONGEST_PAUSE, SEEN, answered_in, email_being_sent
from tests.support.postgresql import new_folder, running_in
from tests.support.scripted_smtp import Email, ScriptedServer
from tests.support.servers import FlaskRun, Gunicorn

LEASE = 20  # seconds: what was claimed when the disk was full comes back after it
NO_LOG = ["sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh"]
full_disk = pytest.mark.parametrize(("engine", "disk"), [("sqlite", 8), ("postgresql", 150)], indirect=True)
pytestmark = pytest.mark.timeout(300)


class SQLiteElsewhere(SQLite):
    """A file outside of the instance folder."""

    @property
    def settings(self) -> dict[str, str]:
        """Its URL."""
        return {"DATABASE_URL": f"sqlite:///{self.path}"}


class Mailbox:
    """The email that is kept in a folder, in the place of a mail server.

    Args:
        folder: the mailbox.
    """

    port, fragments = None, ()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def received(self) -> list[bytes]:
        """The emails, oldest first."""
        return [path.read_bytes() for path in self._files()]

    @property
    def emails(self) -> list[Email]:
        """The same emails, in the form of a mail server's records."""
        return [Email(path.read_bytes(), kept=True, at=path.stat().st_mtime) for path in self._files()]

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    """Return a disk of so many megabytes."""
    folder = new_folder()
    with SmallDisk(folder, megabytes=request.param) as disk:
        yield disk
    shutil.rmtree(folder)


@pytest.fixture
def database_on_disk(disk: SmallDisk, engine: str, migrated_file: Path, tmp_path: Path) -> Iterator[Database]:
    """Return a migrated database on it."""
    if engine == "sqlite":
        yield SQLiteElsewhere(disk.folder, migrated_file)
        return
    with running_in(disk.folder) as server:
        migrate(tmp_path, **server.settings)
        yield server


class TestOfTheDatabase:
    """The disk has the database on it."""

    @pytest.fixture
    def database(self, database_on_disk: Database) -> Database:
        """Return the database on the disk."""
        return database_on_disk

    @full_disk
    def test_a_full_disk_is_the_same_for_everybody_and_loses_nothing(
        self, disk: SmallDisk, open_site: OpenSite, mail: ScriptedServer
    ) -> None:
        site = open_site(mail, OUTBOX_LEASE_SECONDS=LEASE)
        site.statuses = {302, 503}
        site.people.request_resets(2, again=1)
        with email_being_sent(site):
            disk.fill()
            # PostgreSQL finds room in pages that it has for a while.
            until(lambda: answered_in(site, 0.3) == {503} or NO_EMAIL_IS_SENT in site.log(), "a disk that is felt")
            statuses = answered_in(site, 3)
            disk.make_room()
        site.repaired()
        assert answered_in(site, 1) == {302}
        site.settle(LONGEST_PAUSE)
        seen = f"{' or '.join(map(str, sorted(statuses)))} to everybody{SEEN.removeprefix('503 to everybody')}"
        site.check("disk full", "no room for the database, a mail under way; then room", seen)


@pytest.mark.parametrize("disk", [1], indirect=True)
def test_a_full_mailbox_keeps_email_waiting_until_there_is_room(
    disk: SmallDisk, open_site: OpenSite, tmp_path: Path
) -> None:
    (tmp_path / "mailbox").symlink_to(disk.folder)
    mailbox: Any = Mailbox(disk.folder)
    site = open_site(mailbox, (FlaskRun,), EMAIL_HOST=None, EMAIL_PORT=None, EMAIL_FROM=None)
    site.people.request_resets(2)
    site.settle()
    disk.fill()
    site.people.request_resets(2, again=1)
    assert "the mailbox can't be written to (No space left on device)" in site.wait_until_no_email_is_sent()
    assert not any(row.attempts or row.failed_at for row in site.tables.rows())
    disk.make_room()
    site.repaired()
    site.people.request_resets()
    site.settle(LONGEST_PAUSE)
    site.check("disk full", "no room for the mailbox (no mail server set); then room", "all mail waited, uncharged")


def test_logs_that_can_not_be_written_change_nothing_else(open_site: OpenSite, mail: ScriptedServer) -> None:
    site = open_site(mail, ())
    site.start(Gunicorn, prefix=NO_LOG)
    site.people.request_resets(3, again=1)
    site.settle()
    site.check("disk full", "no room for the log (/dev/full) from the start", "all mail went out")
