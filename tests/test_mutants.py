"""The judge of mutation testing: a change that no test notices needs a reason, and what was noticed is counted."""

import tomllib

import pytest

from benchmarks import mutants
from benchmarks.mutants import (
    PLAN,
    ROOT,
    MutantsReport,
    Outcome,
    Part,
    last_outcomes,
    outcomes,
    reasons,
    run,
    write,
)

KNOWN = {("rows.py", "find: `a` → `b`"): "Nobody reads it."}
SURVIVOR = Outcome("rows.py", "find: `a` → `b`", "survived")


def changes(killed: int, *others: Outcome) -> dict[str, list[Outcome]]:
    return {"outbox": [*(Outcome("rows.py", f"find: `{number}`", "killed") for number in range(killed)), *others]}


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (changes(9, SURVIVOR), []),
        (changes(8, SURVIVOR), ["outbox: noticed in 100 changes"]),
        (changes(99, Outcome("rows.py", "find: `c` → `d`", "survived")), ["not noticed, without a reason"]),
        (changes(99, Outcome("mail.py", SURVIVOR.change, "no tests")), ["not noticed, without a reason"]),
        (changes(99, Outcome("rows.py", SURVIVOR.change, "suspicious")), ["without a verdict"]),
        (changes(99, Outcome("rows.py", "find: `c` → `d`", "timeout")), []),
    ],
)
def test_nine_of_ten_changes_must_be_noticed_and_the_others_have_a_reason(found, missed) -> None:
    report = MutantsReport("test")
    write(found, KNOWN, report)
    assert report.missed == missed


def test_figures_replace_what_stands_between_the_marks(tmp_path, monkeypatch) -> None:
    document = tmp_path / "security.md"
    document.write_text("a\n<!-- mutants:start -->\nold\n<!-- mutants:end -->\nb\n")
    monkeypatch.setattr(mutants, "DOCUMENT", document)
    report = MutantsReport("test")
    write(changes(1, SURVIVOR), KNOWN, report)
    report.record()
    text = document.read_text()
    assert text.startswith("a\n<!-- mutants:start -->\n| module ")
    assert "- `rows.py`: Nobody reads it.\n  - find: `a` → `b`\n" in text
    assert text.endswith("\n<!-- mutants:end -->\nb\n")
    assert "old" not in text


def test_a_run_is_judged_again_as_long_as_neither_code_nor_tests_have_changed(tmp_path, monkeypatch) -> None:
    part, other = (Part("outbox", [f"{name}.py"], ["test_rows.py"], "") for name in ("rows", "mail"))
    (tmp_path / "tests").mkdir()
    test = tmp_path / "tests" / "test_rows.py"
    test.write_text("before = 1")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "LAST", tmp_path / "last.json")
    monkeypatch.setattr(mutants, "outcomes", lambda part: [Outcome(part.modules[0], "a", "killed")])
    assert last_outcomes(part) is None
    run(other)
    found = run(part)
    assert (last_outcomes(part), last_outcomes(other)) == (found, [Outcome("mail.py", "a", "killed")])
    test.write_text("after = 1")
    assert last_outcomes(part) is None
    found = run(part)
    assert last_outcomes(part) == found
    (tmp_path / "tests" / "conftest.py").write_text("")
    assert last_outcomes(part) is None


def test_the_plan_names_files_that_are_there_and_a_reason_for_each_survivor() -> None:
    plan = tomllib.loads(PLAN.read_text(encoding="utf-8"))
    parts = [Part(**part) for part in plan["parts"]]
    files = {f"pwreset/{module}" for part in parts for module in part.modules}
    files |= {f"tests/{test}" for part in parts for test in part.tests}
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert all(len(reason) > 20 for reason in reasons(plan).values())
    assert {module for module, _ in reasons(plan)} <= {module for part in parts for module in part.modules}


def test_a_module_is_changed_in_a_copy_and_each_change_has_a_verdict() -> None:
    module = ROOT / "pwreset" / "passwords" / "hashing.py"
    before = module.read_bytes()
    part = Part("passwords", ["passwords/hashing.py"], ["passwords/test_hashing.py"], "becomes or composed or usable")
    found = outcomes(part)
    assert {outcome.module for outcome in found} == {"passwords/hashing.py"}
    assert {outcome.status for outcome in found} <= {"killed", "survived", "timeout", "no tests"}
    assert sum(outcome.noticed for outcome in found) > len(found) / 2
    assert all("` → `" in outcome.change for outcome in found)
    assert module.read_bytes() == before
