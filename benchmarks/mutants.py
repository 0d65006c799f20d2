"""What mutation testing showed: `make mutants` runs `mutmut run`, then `python -m benchmarks.mutants`.

mutmut's configuration is in pyproject.toml. mutmut has neither a bound nor a place for the reason why a mutant may
survive; both are in mutants.toml. Mutants that a test kills, or that never end, are detected. mutmut doesn't change
annotations, docstrings, triple-quoted text, decorated functions and code outside of functions.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

from benchmarks.report import Report, evidence

PLAN = Path(__file__).with_suffix(".toml")
BOUND = 90  # percent
DETECTED = {"killed", "timeout"}
UNDECIDED = {"suspicious", "segfault", "skipped", "not checked", "check was interrupted by user"}


@dataclass(frozen=True)
class Mutant:
    """One change of a module, and what became of it."""

    module: str
    change: str
    status: str

    @property
    def detected(self) -> bool:
        """Whether a test failed or never ended."""
        return self.status in DETECTED


def main() -> None:
    """Write the results of the last run of mutmut, and check the bounds."""
    report = evidence("mutants", "Mutation testing", "mutants")
    write(results(), tomllib.loads(PLAN.read_text(encoding="utf-8")), report)
    report.end()


def results() -> list[Mutant]:
    """Read the results of the last run of mutmut in the current folder."""
    return [mutant for path in sorted(walk_mutatable_files()) for mutant in _mutants(path)]


def _mutants(path: Path) -> list[Mutant]:
    stored = SourceFileMutationData(path=path)
    module = str(path.relative_to("pwreset"))
    stored.load()
    codes = stored.exit_code_by_key.items()
    return [Mutant(module, _change(name, path), status_by_exit_code[code]) for name, code in codes]


def _change(name: str, path: Path) -> str:
    """Return the function and the lines before and after, which stay the same when other code changes."""
    function, class_name = orig_function_and_class_names_from_key(name)
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return f"{class_name + '.' if class_name else ''}{function}: `{before}` → `{after}`"


def write(mutants: Sequence[Mutant], plan: dict[str, Any], report: Report) -> None:
    """Write a table and the survivors with their reasons, and check the bounds."""
    rows = [[module, *_counts(list(group))] for module, group in groupby(mutants, lambda mutant: mutant.module)]
    report.table(["module", "mutants", "detected", "of these by time", "not detected", "detected in 100"], rows)
    for name, modules in plan["groups"].items():
        rate = _rate([mutant for mutant in mutants if mutant.module in modules])
        report.check(f"{name}: detected in 100 mutants", rate, at_least=BOUND)
    reasons = reasons_of(plan)
    undecided = sum(mutant.status in UNDECIDED for mutant in mutants)
    survivors = [mutant for mutant in mutants if not mutant.detected and mutant.status not in UNDECIDED]
    without = [mutant for mutant in survivors if (mutant.module, mutant.change) not in reasons]
    report.check("survivors without a reason", len(without), below=1)
    report.check("without a verdict", undecided, below=1)
    obsolete = reasons.keys() - {(mutant.module, mutant.change) for mutant in mutants}
    report.check("reasons for mutants that no longer exist", len(obsolete), below=1)
    _write_survivors(survivors, reasons, report)


def _write_survivors(survivors: Iterable[Mutant], reasons: dict[tuple[str, str], str], report: Report) -> None:
    report.write("\nSurvivors, and why:\n")
    listed: dict[tuple[str, str], list[str]] = {}
    for mutant in survivors:
        reason = reasons.get((mutant.module, mutant.change), "NO REASON")
        listed.setdefault((mutant.module, reason), []).append(mutant.change)
    for (module, reason), changes in sorted(listed.items()):
        report.write("\n".join([f"- `{module}`: {reason}", *(f"  - {change}" for change in changes)]))


def reasons_of(plan: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Return why mutants may survive, by module and change."""
    return {
        (group["module"], change): group["reason"] for group in plan.get("survivors", []) for change in group["changes"]
    }


def _counts(mutants: Sequence[Mutant]) -> list[object]:
    detected = sum(mutant.detected for mutant in mutants)
    by_time = Counter(mutant.status for mutant in mutants)
    return [len(mutants), detected, by_time["timeout"], len(mutants) - detected, f"{_rate(mutants):.1f}"]


def _rate(mutants: Sequence[Mutant]) -> float:
    return 100 * sum(mutant.detected for mutant in mutants) / len(mutants) if mutants else 0


if __name__ == "__main__":
    main()
