"""The table that a run writes."""

from dataclasses import asdict
from datetime import UTC, datetime

import pytest

from tests.faults.report import BEGIN, END, HEAD, PAGE, Row, differences, in_order, section, written_into

WHEN = datetime(2030, 1, 2, tzinfo=UTC)


def row(*place: object, fault: str = "down", where: str = "gunicorn, SQLite") -> Row:
    return Row(list(place), fault, "closed | opened", where, 14, "9 ms", 7, 0, 2, 0, 0, "3.0 s", "all waited")


FIRST, SECOND, THIRD = row(0, "a.py", 9, []), row(0, "a.py", 10, [1], fault="refused"), row(1, "a.py", 1, [])


def test_rows_stand_in_the_order_of_the_tests_whatever_the_order_of_the_run():
    assert in_order([THIRD, SECOND, FIRST]) == [FIRST, SECOND, THIRD]
    assert section([SECOND, THIRD, FIRST], WHEN) == section([FIRST, SECOND, THIRD], WHEN)


def test_a_row_outlives_its_way_between_processes():
    assert Row(**asdict(FIRST)) == FIRST


def test_each_group_has_a_table_and_the_date_is_told():
    text = section([FIRST, THIRD], WHEN)
    assert "2030-01-02" in text
    assert text.index("### The mail server") < text.index("### Processes")
    assert "### Stores" not in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_only_what_stands_between_the_marks_is_replaced():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert written_into(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert written_into(written_into(page, "one"), "new") == written_into(page, "new")


def test_a_page_without_marks_is_a_mistake():
    with pytest.raises(AssertionError, match="marks"):
        written_into("before and after", "new")


def test_what_the_page_does_not_tell_is_found():
    page = written_into(f"{BEGIN}\n{END}", section([FIRST], WHEN))
    elsewhere = row(0, "a.py", 9, [], where="gunicorn, PostgreSQL")
    assert differences(page, [FIRST]) == []
    assert differences(page, [FIRST, SECOND, elsewhere]) == [
        "reliability.md does not tell of: down (gunicorn, PostgreSQL)",
        "reliability.md does not tell of: refused (gunicorn, SQLite)",
    ]


def test_what_the_page_alone_tells_is_found_and_so_is_one_of_two_of_the_same_name():
    page = written_into(f"{BEGIN}\n{END}", section([FIRST, SECOND, FIRST], WHEN))
    assert differences(page, [FIRST]) == [
        "reliability.md alone tells of: down (gunicorn, SQLite)",
        "reliability.md alone tells of: refused (gunicorn, SQLite)",
    ]


def test_a_fault_with_a_bar_in_its_name_is_found_too():
    odd = row(0, "a.py", 9, [], fault="a | b")
    assert differences(section([odd], WHEN), [odd]) == []


def test_the_page_has_its_marks_and_the_columns_their_heads():
    assert PAGE.read_text(encoding="utf-8").count(BEGIN) == 1
    assert len(HEAD) == len(Row.__dataclass_fields__) - 1
