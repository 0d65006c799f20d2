"""The page that a run of all faults writes."""

from dataclasses import asdict
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from tests.support import fault_report
from tests.support.fault_report import FAULT, HEAD, PAGE, Gatherer, Row, differences, in_order, is_complete, page

WHEN = datetime(2030, 1, 2, tzinfo=UTC)


def row(*place: object, fault: str = "down", where: str = "gunicorn, SQLite") -> Row:
    return Row(list(place), fault, "closed | opened", where, 14, "9 ms", 7, 0, 2, 0, 0, "3.0 s", "all waited")


FIRST, SECOND, THIRD = row(0, "a.py", 9, []), row(0, "a.py", 10, [1], fault="refused"), row(1, "a.py", 1, [])


def test_rows_are_in_the_order_of_the_tests_whatever_the_order_of_the_run():
    assert in_order([THIRD, SECOND, FIRST]) == [FIRST, SECOND, THIRD]
    assert page([SECOND, THIRD, FIRST], WHEN) == page([FIRST, SECOND, THIRD], WHEN)


def test_a_row_survives_the_transfer_between_processes():
    assert Row(**asdict(FIRST)) == FIRST


def test_each_group_has_a_table_and_the_page_names_command_and_date():
    text = page([FIRST, THIRD], WHEN)
    assert text.startswith("# Faults\n\nPrinted by `make faults` on 2030-01-02 (")
    assert text.index("## The mail server") < text.index("## Processes")
    assert "## Stores" not in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_a_fault_that_the_page_lacks_is_found():
    elsewhere = row(0, "a.py", 9, [], where="gunicorn, PostgreSQL")
    text = page([FIRST], WHEN)
    assert differences(text, [FIRST]) == []
    assert differences(text, [FIRST, SECOND, elsewhere]) == [
        "faults.md lacks: down (gunicorn, PostgreSQL)",
        "faults.md lacks: refused (gunicorn, SQLite)",
    ]


def test_a_fault_that_only_the_page_has_is_found_and_so_is_one_of_two_with_the_same_name():
    assert differences(page([FIRST, SECOND, FIRST], WHEN), [FIRST]) == [
        "only faults.md has: down (gunicorn, SQLite)",
        "only faults.md has: refused (gunicorn, SQLite)",
    ]


def test_a_fault_with_a_bar_in_its_name_is_found_too():
    odd = row(0, "a.py", 9, [], fault="a | b")
    assert differences(page([odd], WHEN), [odd]) == []


@pytest.mark.parametrize(
    ("arguments", "options", "complete"),
    [
        (["tests/faults"], {}, True),
        (["tests/faults"], {"keyword": "smtp"}, False),
        (["tests/faults/test_smtp_away.py"], {}, False),
        (["tests"], {}, False),
    ],
)
def test_a_run_is_complete_with_all_faults_and_nothing_else(arguments, options, complete):
    args = [str(fault_report.ROOT / argument) for argument in arguments]
    assert is_complete(SimpleNamespace(args=args, getoption=options.get)) == complete


@pytest.mark.parametrize("recorded", [True, False])
def test_a_complete_run_writes_the_page_only_on_request(recorded, tmp_path, monkeypatch):
    path = tmp_path / "faults.md"
    path.write_text("old")
    monkeypatch.setattr(fault_report, "PAGE", path)
    monkeypatch.setattr(fault_report, "is_complete", lambda _: True)
    monkeypatch.setenv("RECORD", "1" if recorded else "")
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    gatherer = Gatherer(SimpleNamespace())
    gatherer.pytest_runtest_logreport(
        SimpleNamespace(skipped=False, when="call", passed=True, user_properties=[(FAULT, asdict(FIRST))])
    )
    gatherer.pytest_sessionfinish(session)
    assert session.exitstatus == (pytest.ExitCode.OK if recorded else pytest.ExitCode.TESTS_FAILED)
    assert ("| down |" in path.read_text()) == recorded


def test_the_page_has_the_columns_of_a_row():
    assert "\n| " + " | ".join(HEAD) + " |\n" in PAGE.read_text(encoding="utf-8")
    assert len(HEAD) == len(Row.__dataclass_fields__) - 1
