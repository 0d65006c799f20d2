"""The processes of a benchmark: the application's, started as an operator starts them, and the servers they need.

The tests have helpers of their own, which also freeze, kill and inspect processes; a benchmark only starts and ends
them.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import psutil

from benchmarks.report import ROOT

PATIENCE = 30.0  # seconds
HOST = "127.0.0.1"
OUTBOX_RUN = ("-m", "flask", "outbox", "run")
CELERY = ("-m", "celery", "-A", "pwreset.celery_app")


@contextmanager
def running(folder: Path, *command: str, **settings: object) -> Iterator[psutil.Popen]:
    """Run a command in the project until the `with` statement ends.

    Args:
        folder: the instance folder; what the process prints is kept in it.
        command: a program, or what follows `python` if it starts with a dash.
        settings: its environment variables; nothing else of this program's environment is passed on.
    """
    program = [sys.executable, *command] if command[0].startswith("-") else command
    base = {"PATH": os.environ["PATH"], "HOME": folder, "INSTANCE_PATH": folder, "FLASK_SKIP_DOTENV": 1}
    environment = {name: str(value) for name, value in (base | settings).items()}
    with (folder / "output.log").open("ab") as log:
        process = psutil.Popen(
            program, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: psutil.Popen) -> None:
    process.terminate()
    with suppress(psutil.TimeoutExpired):
        process.wait(PATIENCE)
    with suppress(ProcessLookupError):  # none of its children is left either
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def gunicorn(folder: Path, settings: Mapping[str, object]) -> Iterator[tuple[str, psutil.Popen]]:
    """Run gunicorn, and return its URL and process once it answers."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    with running(folder, "-m", "gunicorn", "-b", f"{HOST}:{port}", **settings, PUBLIC_URL=url) as process:
        retry(lambda: _check_health(port))
        yield url, process


def _check_health(port: int) -> None:
    connection = HTTPConnection(HOST, port, timeout=PATIENCE)
    connection.request("GET", "/healthz")
    if connection.getresponse().status != 200:
        raise ConnectionError("The site isn't healthy.")
    connection.close()


def wait_for_port(port: int) -> None:
    """Wait until a server listens."""
    retry(lambda: socket.create_connection((HOST, port)).close())


def retry(action: Callable[[], None]) -> None:
    """Repeat an action that fails with an OSError, for at most PATIENCE."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])
