"""Processes that end with their test, and what they leave behind."""

import re
import subprocess
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Database, Rows
from tests.processes.servers import Server, run, until

Serve = Callable[..., Server]
# Not a mock: it only says which process starts the thread.
OBSERVER = """
import os, threading
start = threading.Thread.start
def observed(self):
    if self.name == "outbox":
        print(f"worker thread in process {os.getpid()}", flush=True)
    start(self)
threading.Thread.start = observed
"""
STARTED = "worker thread in process "
OUR_FAULT = re.compile(r"^.*(?:Traceback|Warning:|Delivery failed).*$", re.MULTILINE)


@pytest.fixture
def instance(database: Database, tmp_path: Path) -> "Instance":
    """Return an instance folder with a migrated, empty database."""
    return Instance(tmp_path, database)


@pytest.fixture
def empty_instance(empty_database: Database, tmp_path: Path) -> "Instance":
    """Return an instance folder with a database that has no tables."""
    return Instance(tmp_path, empty_database)


@pytest.fixture
def serve(database: Database, tmp_path: Path) -> Iterator[Serve]:
    """Return a function that starts a server on the test's instance folder and database; all end with the test.

    `visit=False` asks for no page, not even to see whether it answers. `clean_log=False` is for a test that provokes a
    traceback; nobody else may print one, or a warning.
    """
    started: list[tuple[Server, bool]] = []

    def start(
        kind: type[Server], *options: str, visit: bool = True, clean_log: bool = True, **settings: object
    ) -> Server:
        server = kind(tmp_path, *options, **{**database.settings, **settings})  # type: ignore[arg-type]
        started.append((server, clean_log))
        return server.start() if visit else server.launch()

    yield start
    for server, _ in started:
        server.stop_for_certain()
    for server, clean_log in started:
        assert not (clean_log and OUR_FAULT.search(server.log())), server.log()


@pytest.fixture
def observer(tmp_path: Path) -> Path:
    """Return a folder that, in PYTHONPATH, makes a process tell when it starts the worker."""
    folder = tmp_path / "observer"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(OBSERVER, encoding="utf-8")
    return folder


class Instance:
    """An instance folder and its database as a test sees them from outside, beside the process that uses them."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database = folder, database

    def run(self, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS` on this instance to its end."""
        return run(self.folder, *arguments, **{**self.database.settings, **settings})

    def query(self, sql: str, *values: object) -> Rows:
        """Run one statement, with `?` for each value, and commit."""
        return self.database.query(sql, *values)

    def waiting(self) -> int:
        """How many mails wait in the outbox."""
        return int(str(self.query("SELECT count(*) FROM outbox")[0][0]))

    def wait_until_all_is_sent(self) -> None:
        until(lambda: self.waiting() == 0, "an empty outbox")

    def let_a_minute_pass(self) -> None:
        """Forget when accounts were last mailed."""
        self.query("UPDATE users SET mailed_at = NULL")

    def let_leases_end(self) -> None:
        self.query("UPDATE outbox SET run_after = created_at WHERE run_after IS NOT NULL")

    def mails(self) -> list[EmailMessage]:
        """Return what is in the mailbox folder, oldest first."""
        kept = sorted((self.folder / "mailbox").glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
        return [message_from_bytes(path.read_bytes(), policy=policy.default) for path in kept]

    def wait_for_mail(self, count: int) -> EmailMessage:
        """Wait until so many mails are there, and return the newest."""
        until(lambda: len(self.mails()) >= count, f"{count} mails in the mailbox")
        mails = self.mails()
        assert len(mails) == count
        return mails[-1]
