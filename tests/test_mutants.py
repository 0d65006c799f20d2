"""Mutation testing has a bound for each group of modules, and a survivor needs a reason."""

import subprocess
import sys
import tomllib

import pytest
from mutmut.configuration import reset_config

from benchmarks.mutants import PLAN, Mutant, reasons_of, results, write
from benchmarks.report import ROOT, Report

SURVIVOR = Mutant("rows.py", "find: `a` → `b`", "survived")
REASON = {"module": "rows.py", "reason": "Nobody reads it.", "changes": [SURVIVOR.change]}
EXAMPLE = {"groups": {"outbox": ["rows.py", "mail.py"]}, "survivors": [REASON]}


@pytest.fixture
def report(tmp_path) -> Report:
    return Report(tmp_path / "mutants.md", "Mutation testing", "make mutants")


EXISTS = Mutant(SURVIVOR.module, SURVIVOR.change, "killed")


def mutants(killed: int, *others: Mutant) -> list[Mutant]:
    return [*(Mutant("rows.py", f"find: `{number}`", "killed") for number in range(killed)), *others]


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (mutants(9, SURVIVOR), []),
        (mutants(8, SURVIVOR), ["outbox: detected in 100 mutants"]),
        ([], ["outbox: detected in 100 mutants", "reasons for mutants that no longer exist"]),
        (mutants(99), ["reasons for mutants that no longer exist"]),
        (mutants(99, EXISTS, Mutant("rows.py", "find: `c` → `d`", "survived")), ["survivors without a reason"]),
        (mutants(99, EXISTS, Mutant("mail.py", SURVIVOR.change, "no tests")), ["survivors without a reason"]),
        (mutants(99, Mutant("rows.py", SURVIVOR.change, "suspicious")), ["without a verdict"]),
        (mutants(99, EXISTS, Mutant("rows.py", "find: `c` → `d`", "timeout")), []),
    ],
)
def test_nine_of_ten_mutants_must_be_detected_and_the_others_have_a_reason(found, missed, report) -> None:
    write(found, EXAMPLE, report)
    assert report.missed == missed


def test_survivors_are_listed_with_their_reasons(report) -> None:
    write(mutants(1, SURVIVOR), EXAMPLE, report)
    report.record()
    text = report.path.read_text(encoding="utf-8")
    assert "\n| module " in text
    assert "- `rows.py`: Nobody reads it.\n  - find: `a` → `b`\n" in text


def test_the_groups_are_what_mutmut_changes_and_every_survivor_has_a_reason() -> None:
    plan = tomllib.loads(PLAN.read_text(encoding="utf-8"))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    modules = {module for group in plan["groups"].values() for module in group}
    assert {f"pwreset/{module}" for module in modules} == set(settings["only_mutate"])
    named = settings["only_mutate"] + settings["also_copy"] + settings["pytest_add_cli_args_test_selection"]
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert all(len(reason) > 20 for reason in reasons_of(plan).values())
    assert {module for module, _ in reasons_of(plan)} <= modules


def test_every_mutant_of_a_run_of_mutmut_has_a_verdict(tmp_path, monkeypatch) -> None:
    for path, text in {
        "pyproject.toml": '[tool.mutmut]\nsource_paths = ["pwreset"]\n',
        "pwreset/__init__.py": "",
        "pwreset/rows.py": "def is_due(age):\n    return age > 2\n\n\ndef is_late(age):\n    return age > 7\n",
        "tests/test_rows.py": "from pwreset.rows import is_due, is_late\n\n\ndef test_is_due():\n"
        "    assert [is_due(age) for age in (2, 3)] == [False, True]\n    is_late(1)\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    subprocess.run([sys.executable, "-m", "mutmut", "run"], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    reset_config()
    assert sorted((mutant.change, mutant.status) for mutant in results()) == [
        ("is_due: `return age > 2` → `return age > 3`", "killed"),
        ("is_due: `return age > 2` → `return age >= 2`", "killed"),
        ("is_late: `return age > 7` → `return age > 8`", "survived"),
        ("is_late: `return age > 7` → `return age >= 7`", "survived"),
    ]
    assert {mutant.module for mutant in results()} == {"rows.py"}
    reset_config()
