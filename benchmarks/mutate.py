"""Changes the code in small ways and runs tests on each: `python -m benchmarks.mutate`, inside a copy of the project.

Decides nothing: what is changed, and the tests, stand in the copy's pyproject.toml, and mutmut does the rest. It only
says what became of each change. It never runs in the project itself.
"""

import json
from pathlib import Path

from mutmut.__main__ import run
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

PROCESSES = 3  # tests wait for each other's threads, for Redis and for the clock


def main() -> None:
    """Run all, and write what became of each change."""
    # Not as a command: an application takes a command named `run` for `flask run`.
    run.callback((), max_children=PROCESSES)
    found = [outcome for path in walk_mutatable_files() for outcome in _outcomes(path)]
    Path("outcomes.json").write_text(json.dumps(found), encoding="utf-8")


def _outcomes(path: Path) -> list[dict[str, str]]:
    mutants = SourceFileMutationData(path=path)
    mutants.load()
    return [
        {"module": str(path.relative_to("pwreset")), "change": _change(name, path), "status": status_by_exit_code[code]}
        for name, code in mutants.exit_code_by_key.items()
    ]


def _change(name: str, path: Path) -> str:
    """Return the function, and the lines before and after, in words that stay the same when others change."""
    function, kind = orig_function_and_class_names_from_key(name)
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return f"{kind + '.' if kind else ''}{function}: `{before}` → `{after}`"


if __name__ == "__main__":
    main()
