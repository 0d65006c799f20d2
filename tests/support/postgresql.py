"""A real PostgreSQL server for one test, which it can stop, kill and freeze without affecting others.

It runs the programs of this machine as a user who is not root, for loopback only.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.clock import PATIENCE, until
from tests.support.redis import HOST
from tests.support.servers import free_port

USER = "postgres"
FAST, IMMEDIATE = signal.SIGINT, signal.SIGQUIT  # what `pg_ctl stop -m` sends


def program(name: str) -> str:
    """Return where a program of PostgreSQL's server is; Debian keeps those out of PATH."""
    known = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), os.environ["PATH"]]
    found = shutil.which(name, path=os.pathsep.join(known))
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is not installed")
    return found


def as_its_user() -> dict[str, Any]:
    """Return how to run its programs, which refuse to be root's."""
    return {"user": USER, "group": USER, "extra_groups": []} if os.geteuid() == 0 else {}


def new_folder() -> Path:
    """Return a folder that its user may enter, which the tests' own are not."""
    return Path(tempfile.mkdtemp(prefix="pwreset-postgresql-"))


@contextmanager
def running_in(folder: Path) -> Iterator["PostgreSQLServer"]:
    """Make a server in a folder, and start it; it ends with the block."""
    server = PostgreSQLServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.end()


class PostgreSQLServer:
    """`postgres` with a database named as its user, on a port of its own.

    Args:
        folder: from `new_folder`, for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.settings = {"DATABASE_URL": f"postgresql://{USER}@{HOST}:{self.port}/{USER}"}
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER, USER)
        make = [program("initdb"), "-D", self.cluster, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **as_its_user())

    @property
    def cluster(self) -> Path:
        """Where its files are."""
        return self.folder / "cluster"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        """Start, and wait until it answers."""
        sockets = ("-c", "unix_socket_directories=", "-c", f"listen_addresses={HOST}", "-c", f"port={self.port}")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", self.cluster, *sockets],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **as_its_user(),
            )
        until(self._answers, f"an answer from PostgreSQL on port {self.port}", timeout=90)

    def stop(self, how: signal.Signals = FAST) -> None:
        """Stop as `pg_ctl stop` does: FAST ends every connection in order, IMMEDIATE lets everything drop."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """Stop every process of it in its tracks; the kernel still takes connections."""
        self._send_to_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send_to_all(signal.SIGCONT)

    def end(self) -> None:
        """End it, whatever happened."""
        if self._process is not None:
            self.thaw()
        self.stop(IMMEDIATE)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.settings["DATABASE_URL"], connect_timeout=2).close()
            return True
        return False

    def _send_to_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *children_of(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def children_of(parent: int) -> Iterator[int]:
    """List the processes that another one started, and that still run."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            state: Sequence[str] = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(state[1]) == parent:
                yield int(folder.name)
