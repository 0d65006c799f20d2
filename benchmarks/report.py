"""What a benchmark prints: tables, and bounds that are met or missed. With RECORD=1 it also writes docs/evidence/."""

import os
import platform
import signal
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]


class Report:
    """The figures of one program, printed as they come.

    Args:
        path: the file that RECORD=1 writes.
        title: of that file.
        command: that prints the figures.
    """

    def __init__(self, path: Path, title: str, command: str) -> None:
        self.path = path
        self.title = title
        self.command = command
        self.missed: list[str] = []
        self._lines: list[str] = []

    def write(self, text: str = "") -> None:
        """Print a paragraph and keep it for the file."""
        print(text, flush=True)
        self._lines.append(text)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table in Markdown."""
        cells = [[str(cell) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in [head, *cells]) for column in range(len(head))]
        for row in (list(head), ["-" * width for width in widths], *cells):
            self.write("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        self.write()

    def check(self, what: str, figure: float, *, at_least: float | None = None, below: float | None = None) -> None:
        """Print a figure and whether it is within its bound; a missed one makes the program fail."""
        met = (at_least is None or figure >= at_least) and (below is None or figure < below)
        bound = f"at least {at_least:g}" if at_least is not None else f"below {below:g}"
        self.write(f"- {what}: **{figure:.4g}**, must be {bound}: {'met' if met else 'MISSED'}")
        if not met:
            self.missed.append(what)

    def record(self) -> None:
        """Write the file."""
        machine = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        source = f"Printed by `{self.command}` on {datetime.now(UTC):%Y-%m-%d} ({machine})."
        self.path.write_text("\n".join([f"# {self.title}", "", source, "", *self._lines]).rstrip() + "\n", "utf-8")

    def status(self) -> str | int:
        """Record the figures if RECORD is set, and return the program's exit status or the reason why it fails."""
        if os.environ.get("RECORD"):
            self.record()
        return f"Missed: {'; '.join(self.missed)}" if self.missed else 0

    def end(self) -> NoReturn:
        """End the program.

        Raises:
            SystemExit: with status 1 if a bound was missed.
        """
        sys.exit(self.status())


def evidence(name: str, title: str, target: str) -> Report:
    """Return a report for docs/evidence/.

    Args:
        name: of the file.
        title: of the file.
        target: of the Makefile that prints the figures.
    """
    return Report(ROOT / "docs" / "evidence" / f"{name}.md", title, f"make {target}")


def clean_up_on_sigterm() -> None:
    """Let SIGTERM end the program as an exception does, so that every `with` statement cleans up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
