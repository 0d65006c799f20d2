"""The application's processes, started as an operator starts them, with the settings of production.

Decides how they are started and ended, and what they hold in memory and used of the processors. Linux only: it reads
/proc.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import Server

TICKS = os.sysconf("SC_CLK_TCK")
# The tests' processes are told to hurry and to warn; unbuffered, what they print shows that they have begun.
AS_IN_PRODUCTION = {"OUTBOX_POLL_SECONDS": None, "PYTHONWARNINGS": None, "PYTHONUNBUFFERED": 1}


class OutboxRun(Server):
    """`flask outbox run`."""

    def command(self) -> Sequence[str]:
        """Return what follows `python`."""
        return "-m", "flask", "outbox", "run"


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Start processes, and end them in order; whatever happened, none is left."""
    try:
        for server in servers:
            server.launch() if isinstance(server, OutboxRun) else server.start()
        yield
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()
    finally:
        for server in servers:
            server.stop_for_certain()


def workers(folder: Path, number: int, settings: dict[str, str]) -> list[Server]:
    """Return so many delivering processes, each with a folder of its own for what it prints."""
    return [OutboxRun(folder, **AS_IN_PRODUCTION, **settings) for _ in range(number)]


def resident_memory(pid: int) -> int:
    """Return the resident memory of a process in bytes, shared pages and all."""
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def processor_seconds(pid: int) -> float:
    """Return the time of the processors that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
