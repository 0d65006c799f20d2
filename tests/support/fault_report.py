"""The table of all faults in `docs/evidence/faults.md`, which `make faults RECORD=1` writes.

Only a complete run that passed is written; without RECORD, it fails if the table lists other faults than the run had.
With several processes of pytest-xdist, the rows reach the first one as `user_properties` of the reports.
"""

import os
import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import ROOT

FAULTS = ROOT / "tests" / "faults"
PAGE = ROOT / "docs" / "evidence" / "faults.md"
# The groups in the order of their tables, by the first word in the names of their files: `test_smtp_away.py`.
GROUPS = {"smtp": "The mail server", "processes": "Processes", "stores": "Stores", "time": "Time"}
FAULT = "fault"  # the name of a row among the properties
HEAD = [
    "fault",
    "what was done",
    "where",
    "requests",
    "slowest POST",
    "mails",
    "second copies",
    "merged",
    "expired",
    "refused",
    "well again after",
    "what was seen",
]


@dataclass(frozen=True)
class Row:
    """One fault and what was observed.

    Args:
        place: group, file, line and parameters of the test, by which rows are sorted. The others are the columns.
    """

    place: list[Any]
    fault: str
    done: str
    where: str
    requests: int
    slowest: str
    mails: int
    copies: int
    merged: int
    expired: int
    refused: int
    well_after: str
    seen: str

    def line(self) -> str:
        """Return the row in Markdown."""
        return _line(str(cell) for cell in astuple(self)[1:])


def place_of(item: pytest.Item) -> list[Any]:
    """Return the place of a test whose file is `test_<group>.py` or `test_<group>_<rest>.py`."""
    callspec = getattr(item, "callspec", None)
    parameters = sorted(callspec.indices.items()) if callspec else []
    group = list(GROUPS).index(item.path.stem.split("_")[1])
    return [group, item.path.name, item.location[1], [number for _, number in parameters]]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return the rows in the order of the table, whatever the order of the run."""
    return sorted(rows, key=lambda row: row.place)


def page(rows: Iterable[Row], when: datetime) -> str:
    """Return all tables in Markdown, with the command that printed them, the date and the machine."""
    machine = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    parts = ["# Faults", f"Printed by `make faults` on {when:%Y-%m-%d} ({machine})."]
    for number, title in enumerate(GROUPS.values()):
        own = [row.line() for row in in_order(rows) if row.place[0] == number]
        if own:
            parts.append("\n".join([f"## {title}\n", _line(HEAD), _line("---" for _ in HEAD), *own]))
    return "\n\n".join(parts) + "\n"


def differences(text: str, rows: Iterable[Row]) -> list[str]:
    """Return each fault, with its servers and database, that only the page or only the run has."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    listed = Counter((cells[0].strip(), cells[2]) for cells in lines if len(cells) == len(HEAD))
    del listed["fault", "where"], listed["---", "---"]
    seen = Counter((_cell(row.fault), row.where) for row in rows)
    found = [(f"{PAGE.name} lacks", seen - listed), (f"only {PAGE.name} has", listed - seen)]
    return [f"{what}: {fault} ({where})" for what, rest in found for fault, where in sorted(rest.elements())]


def is_complete(config: pytest.Config) -> bool:
    """Whether a run has all faults and nothing else."""
    chosen = any(config.getoption(name) for name in ("keyword", "markexpr", "deselect", "lf", "ignore", "ignore_glob"))
    return not chosen and [Path(argument).resolve() for argument in config.args] == [FAULTS]


class Gatherer:
    """A plugin of pytest that collects the rows of a run, and writes or compares the page.

    Args:
        config: of the run.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rows: list[Row] = []
        self._differences: list[str] = []
        self._skipped = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the rows of a test that passed."""
        self._skipped |= report.skipped
        if report.when == "call" and report.passed:
            self._rows += [Row(**columns) for name, columns in report.user_properties if name == FAULT]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page with RECORD=1; otherwise compare it."""
        if session.exitstatus != pytest.ExitCode.OK or self._skipped or not is_complete(self._config):
            return
        if os.environ.get("RECORD"):
            PAGE.write_text(page(self._rows, datetime.now(UTC)), encoding="utf-8")
        self._differences = differences(PAGE.read_text(encoding="utf-8"), self._rows)
        if self._differences:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the rows and the differences."""
        for row in in_order(self._rows):
            terminalreporter.write_line(row.line())
        for difference in self._differences:
            terminalreporter.write_line(f"{difference}: run `make faults RECORD=1`", red=True)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
