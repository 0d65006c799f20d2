"""What a benchmark says: tables, bounds that are kept or missed, and its part of docs/performance.md.

Decides how figures are shown and that a missed bound ends the program with status 1.
"""

import re
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


class Report:
    """One program's figures, printed as they come.

    Args:
        name: of its part in the document.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.missed: list[str] = []
        self._lines: list[str] = []

    def say(self, text: str = "") -> None:
        """Print a paragraph and keep it for the document."""
        print(text, flush=True)
        self._lines.append(text)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table, which is Markdown too; a row is shown when its figures are there."""
        kept = [[str(cell) for cell in row] for row in rows]
        widths = [max(len(row[column]) for row in [head, *kept]) for column in range(len(head))]
        for row in (list(head), ["-" * width for width in widths], *kept):
            self.say("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        self.say()

    def hold(self, what: str, figure: float, *, at_least: float | None = None, below: float | None = None) -> None:
        """Say whether a bound is kept."""
        kept = (at_least is None or figure >= at_least) and (below is None or figure < below)
        bound = f"at least {at_least:g}" if at_least is not None else f"below {below:g}"
        self.say(f"- {what}: **{figure:.4g}**, held to {bound}: {'kept' if kept else 'MISSED'}")
        if not kept:
            self.missed.append(what)

    def record(self) -> None:
        """Put it all into the document, between this program's two marks."""
        start, end = f"<!-- {self.name} -->", f"<!-- end of {self.name} -->"
        text = DOCUMENT.read_text(encoding="utf-8")
        part = "\n".join([start, *self._lines, end])
        DOCUMENT.write_text(
            re.sub(f"{re.escape(start)}.*{re.escape(end)}", lambda _: part, text, flags=re.DOTALL), encoding="utf-8"
        )

    def end(self, *, record: bool) -> NoReturn:
        """Finish the program.

        Raises:
            SystemExit: with status 1 where a bound was missed.
        """
        if record:
            self.record()
        sys.exit(f"Missed: {'; '.join(self.missed)}" if self.missed else 0)


def tidy_up_on_sigterm() -> None:
    """Let SIGTERM end the program as an exception does, so that what it started and made is taken away."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
