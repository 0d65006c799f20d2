"""An instance folder with its database, which a test reads and changes beside the processes that use it."""

import subprocess
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from tests.support.clock import until
from tests.support.databases import Database, Rows
from tests.support.servers import Server, run

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


class Instance:
    """An instance folder and its database as a test sees them, beside the processes that use them.

    Args:
        folder: the instance folder.
        database: where the processes keep their rows.
        settings: of every process; None leaves one out.
    """

    def __init__(self, folder: Path, database: Database, **settings: object) -> None:
        self.folder, self.database = folder, database
        self.settings: dict[str, object] = {**database.settings, **settings}

    def run(self, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run `python ARGUMENTS` on this instance to its end."""
        return run(self.folder, *arguments, **{**self.settings, **settings})

    def flask(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a `flask` command on this instance to its end."""
        return self.run("-m", "flask", *arguments, stdin=stdin)

    def query(self, sql: str, *values: object) -> Rows:
        """Run one statement, with `?` for each value, and commit."""
        return self.database.query(sql, *values)

    def waiting(self) -> int:
        """Return how many emails wait in the outbox."""
        return int(str(self.query("SELECT count(*) FROM outbox")[0][0]))

    def wait_until_all_is_sent(self) -> None:
        """Wait until the outbox is empty."""
        until(lambda: self.waiting() == 0, "an empty outbox")

    def let_a_minute_pass(self) -> None:
        """End the cooldown of every account, as a minute without emails would."""
        self.query("UPDATE users SET mailed_at = NULL")

    def let_leases_end(self) -> None:
        """Make every waiting email due now, also one that a process has claimed."""
        self.query("UPDATE outbox SET run_after = created_at WHERE run_after IS NOT NULL")

    def emails(self) -> list[EmailMessage]:
        """Return the emails in the mailbox, oldest first."""
        kept = sorted((self.folder / "mailbox").glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
        return [message_from_bytes(path.read_bytes(), policy=policy.default) for path in kept]

    def wait_for_emails(self, count: int) -> EmailMessage:
        """Wait until so many emails are in the mailbox, and return the newest."""
        until(lambda: len(self.emails()) >= count, f"{count} emails in the mailbox")
        emails = self.emails()
        assert len(emails) == count
        return emails[-1]
