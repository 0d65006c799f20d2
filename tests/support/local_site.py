"""The application as people run it: a `flask run` process of its own, on a free port, with a fresh instance folder.

The browser tests and docs/screenshots.py both start it from here.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_urlsafe

from tests.support.databases import Database
from tests.support.passwords import PASSWORD
from tests.support.servers import ROOT

CHROMIUM = Path("/usr/bin/chromium")
LAUNCH = {
    "executable_path": str(CHROMIUM),
    "args": [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ],
}
ORIGINAL = "original@example.com"
COPY = """
    INSERT INTO users (email, email_key, stamp, password_hash, is_active, created_at)
    SELECT ?, ?, ?, password_hash, is_active, created_at FROM users WHERE email = ?
"""
START_SECONDS = 30


class Site:
    """A running application.

    Args:
        database: its database.
        folder: its instance folder.
        url: where it answers, without a slash at the end.
        environ: what it and its commands run with.
    """

    def __init__(self, database: Database, folder: Path, url: str, environ: dict[str, str]) -> None:
        self.database, self.folder, self.url, self.environ = database, folder, url, environ
        self._has_original = False

    def flask(self, *command: str, typed: str = "") -> str:
        """Run a `flask` command on the same instance and return what it printed."""
        return _flask(self.environ, *command, typed=typed)

    def add_user(self, address: str) -> None:
        """Add an account with PASSWORD; no mail is sent, so the next one need not wait.

        The command makes the first one, which nobody uses; it takes a second to start, so the others are copies.
        """
        if not self._has_original:
            self.flask("users", "create", ORIGINAL, "--password-stdin", typed=PASSWORD + "\n")
            self._has_original = True
        self.database.query(COPY, address, address, token_urlsafe(24), ORIGINAL)

    def let_a_minute_pass(self, address: str) -> None:
        """Forget when an account was last mailed: one mail a minute is the rule, and nobody here wants to wait."""
        self.database.query("UPDATE users SET mailed_at = NULL WHERE email = ?", address)

    def log(self) -> str:
        """Return what the process printed."""
        return (self.folder / "log").read_text(encoding="utf-8")


@contextmanager
def running(folder: Path, database: Database, **settings: str) -> Iterator[Site]:
    """Migrate and serve an instance in `folder`; the process ends with the block.

    Args:
        folder: the instance folder, empty.
        database: where it keeps its rows, without tables.
        settings: environment variables of the application.
    """
    environ = {
        "PATH": os.environ["PATH"],
        "FLASK_SKIP_DOTENV": "1",
        "PYTHONUNBUFFERED": "1",
        "INSTANCE_PATH": str(folder),
        "OUTBOX_POLL_SECONDS": "0.1",
        # Everybody here comes from one address: all the tests together would be one very busy visitor.
        "RATELIMIT_ENABLED": "false",
        **database.settings,
        **settings,
    }
    _flask(environ, "db", "upgrade")
    with (folder / "log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "flask", "run", "--port", "0"]
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield Site(database, folder, _address_of(process, folder / "log"), environ)
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _flask(environ: dict[str, str], *command: str, typed: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flask", *command],
        cwd=ROOT,
        env=environ,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"flask {' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def _address_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the process says where it answers: it chose a free port itself."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"Running on (http://[\d.]+:\d+)", log.read_text(encoding="utf-8"))
        if found:
            return found[1]
        time.sleep(0.05)
    printed = log.read_text(encoding="utf-8")
    raise AssertionError(printed)
