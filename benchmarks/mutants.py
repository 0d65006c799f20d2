"""Whether the tests notice when the code is wrong: `python -m benchmarks.mutants`.

Decides how many of the changes the tests must notice, and that one which they don't stands in mutants.toml with the
reason, as the code and the tests do. It works on copies of the project. What is a change is mutmut's business: one
operator, argument, value or branch of a function. It leaves alone annotations, docstrings, triple-quoted text,
decorated functions, and what stands outside of functions.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.report import Report, tidy_up_on_sigterm

ROOT = Path(__file__).resolve().parents[1]
LAST = ROOT / ".mutants.json"  # what became of the changes in the last run of each part
PLAN, DOCUMENT = Path(__file__).with_suffix(".toml"), ROOT / "docs" / "security.md"
MARKED = re.compile("(?<=<!-- mutants:start -->\n).*(?=<!-- mutants:end -->)", re.DOTALL)
NOT_COPIED = (".*", "__pycache__", "instance", "mutants")
# A change may make a loop endless, and not only in the main thread.
OPTIONS = ("-p", "no:cacheprovider", "-o", "timeout=30", "-o", "timeout_method=thread")
BOUND = 90  # of a hundred changes
NOTICED = {"killed", "timeout"}
NO_VERDICT = {"suspicious", "segfault", "skipped", "not checked", "check was interrupted by user"}


@dataclass(frozen=True)
class Part:
    """Modules that are changed, and the tests that have to notice."""

    area: str
    modules: Sequence[str]
    tests: Sequence[str]
    chosen: str


@dataclass(frozen=True)
class Outcome:
    """What became of one change of a module."""

    module: str
    change: str
    status: str

    @property
    def noticed(self) -> bool:
        """Whether a test failed, or never came to its end."""
        return self.status in NOTICED


class MutantsReport(Report):
    """Figures that stand in docs/security.md."""

    def record(self) -> None:
        """Put them all between the marks there."""
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(MARKED.sub(lambda _: "\n".join([*self._lines, ""]), text), encoding="utf-8")


def main() -> None:
    """Change, test and judge."""
    plan = tomllib.loads(PLAN.read_text(encoding="utf-8"))
    parts = [Part(**part) for part in plan["parts"]]
    options = _options({part.area for part in parts})
    tidy_up_on_sigterm()
    found = dict[str, list[Outcome]]()
    for part in parts:
        if options.area in {None, part.area}:
            found.setdefault(part.area, []).extend((last_outcomes(part) if options.again else None) or run(part))
    report = MutantsReport("benchmarks.mutants")
    write(found, reasons(plan), report)
    report.end(record=options.record)


def run(part: Part) -> list[Outcome]:
    """Return what became of each change of a part, and keep it, to be judged again when there are more reasons."""
    before, found = state(part), outcomes(part)
    kept = last_runs() | {" ".join(part.modules): {"of": before, "outcomes": [asdict(outcome) for outcome in found]}}
    LAST.write_text(json.dumps(kept), encoding="utf-8")
    return found


def last_outcomes(part: Part) -> list[Outcome] | None:
    """Return what the part's last run found, if neither code nor tests have changed since."""
    last = last_runs().get(" ".join(part.modules), {"of": None})
    return [Outcome(**outcome) for outcome in last["outcomes"]] if last["of"] == state(part) else None


def last_runs() -> dict[str, Any]:
    """Return what is kept of each part."""
    return json.loads(LAST.read_text(encoding="utf-8")) if LAST.exists() else {}


def state(part: Part) -> str:
    """Return a hash of code and pages, of tests that have to notice, of what they share, and how they are chosen."""
    code = [*(ROOT / "pwreset").rglob("*.py"), *(ROOT / "templates").rglob("*.*")]
    shared = [path for path in (ROOT / "tests").rglob("*.py") if not path.name.startswith("test_")]
    files = sorted([*code, *shared, *(ROOT / "tests" / test for test in part.tests)])
    return sha256(b"\0".join([*(file.read_bytes() for file in files), part.chosen.encode()])).hexdigest()


def _options(areas: Iterable[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--area", choices=sorted(areas), help="this one only")
    parser.add_argument("--again", action="store_true", help="run only what has changed since its last run")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/security.md")
    options = parser.parse_args()
    if options.record and (options.area or not MARKED.search(DOCUMENT.read_text(encoding="utf-8"))):
        parser.error("all areas are recorded together, between the marks in docs/security.md")
    return options


def outcomes(part: Part) -> list[Outcome]:
    """Change the modules of one part in all ways, and return what became of each change."""
    print(f"{', '.join(part.modules)} ...", flush=True)
    with copy_of_the_project(part) as copy, (copy.parent / "output").open("w+", encoding="utf-8") as output:
        # With TMPDIR, what the tests leave behind goes when the copy goes.
        command, settings = [sys.executable, "-m", "benchmarks.mutate"], os.environ | {"TMPDIR": str(copy.parent)}
        if subprocess.run(command, cwd=copy, env=settings, stdout=output, stderr=output, check=False).returncode:
            sys.exit(Path(output.name).read_text(encoding="utf-8")[-5000:])
        return [Outcome(**outcome) for outcome in json.loads((copy / "outcomes.json").read_text(encoding="utf-8"))]


@contextmanager
def copy_of_the_project(part: Part) -> Iterator[Path]:
    """Copy it to where it may be changed, and tell mutmut there what to do."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
        settings = {
            "source_paths": ["pwreset"],
            "only_mutate": [f"pwreset/{module}" for module in part.modules],
            "also_copy": sorted(path.name for path in copy.iterdir() if path.name != "pwreset"),
            "pytest_add_cli_args": [*OPTIONS, "-k", part.chosen],
            "pytest_add_cli_args_test_selection": [f"tests/{test}" for test in part.tests],
            "timeout_multiplier": 4.0,
            "timeout_constant": 30.0,  # seconds, before that is multiplied
        }
        with (copy / "pyproject.toml").open("a", encoding="utf-8") as configuration:
            configuration.write("\n[tool.mutmut]\n")
            configuration.writelines(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        yield copy


def reasons(plan: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Return why changes may stay unnoticed, by module and change."""
    return {
        (group["module"], change): group["reason"] for group in plan.get("survivors", []) for change in group["changes"]
    }


def write(found: dict[str, list[Outcome]], known: dict[tuple[str, str], str], report: Report) -> None:
    """Show what became of the changes, and judge."""
    every = [outcome for area in found.values() for outcome in area]
    rows = [[module, *_counts(list(changes))] for module, changes in groupby(every, lambda outcome: outcome.module)]
    report.table(["module", "changes", "noticed", "of these by time", "not noticed", "noticed in 100"], rows)
    for area, changes in found.items():
        report.hold(f"{area}: noticed in 100 changes", _rate(changes), at_least=BOUND)
    unnoticed = [outcome for outcome in every if not outcome.noticed]
    why = [known.get((outcome.module, outcome.change), "") for outcome in unnoticed]
    report.hold("not noticed, without a reason", why.count(""), below=1)
    report.hold("without a verdict", sum(outcome.status in NO_VERDICT for outcome in unnoticed), below=1)
    report.say("\nNot noticed, and why:\n")
    by_reason = groupby(sorted(zip(unnoticed, why, strict=True), key=_module_and_reason), _module_and_reason)
    for (module, reason), group in by_reason:
        report.say(f"- `{module}`: {reason or 'NO REASON'}")
        for outcome, _ in group:
            report.say(f"  - {outcome.change}")


def _module_and_reason(found: tuple[Outcome, str]) -> tuple[str, str]:
    return found[0].module, found[1]


def _counts(changes: Sequence[Outcome]) -> list[object]:
    by_status, noticed = Counter(outcome.status for outcome in changes), sum(outcome.noticed for outcome in changes)
    return [len(changes), noticed, by_status["timeout"], len(changes) - noticed, f"{_rate(changes):.1f}"]


def _rate(changes: Sequence[Outcome]) -> float:
    return 100 * sum(outcome.noticed for outcome in changes) / len(changes)


if __name__ == "__main__":
    main()
