"""The table of all faults in `docs/reliability.md`: written by the run itself, never by hand.

Decides what a row holds, in which order rows stand, and that only a complete run that passed is written down. With
several processes of pytest-xdist the rows travel to the first one as the reports' `user_properties`.
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

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- what follows is written by `make faults` -->", "<!-- what precedes is written by `make faults` -->"
# A test's file says to which it belongs: `test_smtp_away.py`. This is the order of the groups, too.
GROUPS = {"smtp": "The mail server", "processes": "Processes", "stores": "Stores", "time": "Time"}
FAULT = "fault"  # the rows' name among the properties
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
    """One fault and what was seen.

    Args:
        place: group, file, line and parameters of the test, which order the rows. The others are the columns.
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
    """Return where a test stands among all: its file is `test_<group>.py` or `test_<group>_<rest>.py`."""
    callspec = getattr(item, "callspec", None)
    parameters = sorted(callspec.indices.items()) if callspec else []
    group = list(GROUPS).index(item.path.stem.split("_")[1])
    return [group, item.path.name, item.location[1], [number for _, number in parameters]]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return the rows as they stand in the table, whatever the order of the run."""
    return sorted(rows, key=lambda row: row.place)


def section(rows: Iterable[Row], when: datetime) -> str:
    """Return all tables in Markdown, with a line that says how they came about."""
    machine = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    parts = [f"Measured by `make faults` on {when:%Y-%m-%d} ({machine})."]
    for number, title in enumerate(GROUPS.values()):
        own = [row.line() for row in in_order(rows) if row.place[0] == number]
        if own:
            parts.append("\n".join([f"### {title}\n", _line(HEAD), _line("---" for _ in HEAD), *own]))
    return "\n\n".join(parts)


def written_into(page: str, text: str) -> str:
    """Return the page with a text between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{PAGE.name} has lost its marks"
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def differences(page: str, rows: Iterable[Row]) -> list[str]:
    """Return the faults, each with where it was tried, that a page does not tell of, or tells of and nobody tries."""
    listed = [line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    told = Counter((cells[0].strip(), cells[2]) for cells in listed if len(cells) == len(HEAD))
    del told["fault", "where"], told["---", "---"]
    seen = Counter((_cell(row.fault), row.where) for row in rows)
    found = [(f"{PAGE.name} does not tell of", seen - told), (f"{PAGE.name} alone tells of", told - seen)]
    return [f"{what}: {fault} ({where})" for what, rest in found for fault, where in sorted(rest.elements())]


def is_complete(config: pytest.Config) -> bool:
    """Whether a run was asked for all faults, and for nothing else."""
    chosen = any(config.getoption(name) for name in ("keyword", "markexpr", "deselect", "lf", "ignore", "ignore_glob"))
    return not chosen and [Path(argument).resolve() for argument in config.args] == [HERE]


class Gatherer:
    """A plugin of pytest that collects the rows of a run and ends it.

    A complete run that passed rewrites the page; on CI it only fails where the page has other faults.

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
        """Rewrite the page, or compare."""
        if session.exitstatus != pytest.ExitCode.OK or self._skipped or not is_complete(self._config):
            return
        page = PAGE.read_text(encoding="utf-8")
        if os.environ.get("CI") != "true":
            PAGE.write_text(written_into(page, section(self._rows, datetime.now(UTC))), encoding="utf-8")
            return
        self._differences = differences(page, self._rows)
        if self._differences:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the rows, and in what the page differs."""
        for row in in_order(self._rows):
            terminalreporter.write_line(row.line())
        for difference in self._differences:
            terminalreporter.write_line(f"{difference}: run `make faults`", red=True)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
