"""The judges of the benchmarks: a bound that is missed is seen."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import report as reports
from benchmarks import verdict
from benchmarks.load import Run
from benchmarks.pace import AIM, _change, percentile
from benchmarks.report import Report
from benchmarks.visits import KNOWN, KNOWN_ADDRESS, NOTICE, REGISTRATION, UNKNOWN_ADDRESS, Books, Town, addresses

MIB = 1024 * 1024


def good_run() -> Run:
    """Return a run in which everything went well."""
    books = Books(
        accepted=Counter({KNOWN_ADDRESS: 5, UNKNOWN_ADDRESS: 3, REGISTRATION: 2, NOTICE: 1}),
        addresses={"alice@example.com", "bob@example.com"},
        seconds=[("page", 100.0 + number, 0.010) for number in range(60)],
    )
    post = SimpleNamespace(
        copies=Counter(f"<{number}@example.com>" for number in range(7)),
        recipients={"alice@example.com", "bob@example.com"},
        delays=[0.5],
    )
    events = {"mailed": 6, "merged": 1}
    memory = [{"web": 100 * MIB}, {"web": 105 * MIB}]
    # 5 + 2 + 1 were owed a mail: 7 came, and 1 merged.
    return Run(1, books, post, began=100.0, ended=160.0, rates=[1.0], memory=memory, events=events)  # type: ignore[arg-type]


def missed_by(run: Run) -> list[str]:
    report = Report("test")
    verdict.write(run, report, "celery")
    return report.missed


def test_a_run_in_which_all_went_well_misses_nothing() -> None:
    assert missed_by(good_run()) == []


def slow(run: Run) -> None:
    run.books.seconds += [("login", 120.0, 0.2)] * 10


def failed(run: Run) -> None:
    run.books.errors.append("looks_around: 500")


def lost(run: Run) -> None:
    run.books.accepted[KNOWN_ADDRESS] += 1


def forgotten(run: Run) -> None:
    run.books.addresses.add("carol@example.com")


def left(run: Run) -> None:
    run.waiting["register"] = 1


def doubled(run: Run) -> None:
    run.post.copies["<1@example.com>"] += 1


def uncounted(run: Run) -> None:
    run.events["mailed"] -= 1


def grown(run: Run) -> None:
    run.memory[1]["another"] = 6 * MIB


def shrunk(run: Run) -> None:
    run.memory[1]["web"] = 89 * MIB


@pytest.mark.parametrize(
    ("happened", "noticed"),
    [
        (slow, "95th percentile"),
        (failed, "errors"),
        (lost, "lost"),
        (forgotten, "addresses that are owed"),
        (left, "left in the outbox"),
        (doubled, "duplicates"),
        (uncounted, "count apart"),
        (grown, "resident memory"),
        (shrunk, "resident memory"),
    ],
)
def test_a_run_in_which_one_thing_went_wrong_misses_that_bound(happened: Any, noticed: str) -> None:
    run = good_run()
    happened(run)
    missed = missed_by(run)
    assert len(missed) == 1
    assert missed[0].startswith(noticed) or noticed in missed[0]


def test_what_is_left_is_told_about(capsys: pytest.CaptureFixture[str]) -> None:
    run = good_run()
    run.waiting, run.left = {"register": 1}, ["register, asked for 200 s ago, due in 40 s"]
    missed_by(run)
    assert "  - register, asked for 200 s ago, due in 40 s\n" in capsys.readouterr().out


def test_nobody_is_asked_for_again_before_all_had_their_turn() -> None:
    """A sixth mail within the hour would wait for its end."""
    town = Town(SimpleNamespace(), SimpleNamespace(), 1)  # type: ignore[arg-type]
    asked = [town.somebody() for _ in range(KNOWN)]
    assert set(asked) == {address for address in addresses() if address.startswith("known.")}


def test_what_ended_before_or_after_the_measured_part_does_not_count() -> None:
    run = good_run()
    run.books.seconds += [("page", 99.9, 9.0), ("page", 160.0, 9.0)] * 10
    assert missed_by(run) == []


@pytest.mark.parametrize(("missed", "status"), [(False, 0), (True, 1)])
def test_a_missed_bound_ends_the_program_with_status_1(missed: bool, status: int) -> None:
    report = Report("test")
    report.hold("a ratio", 1 if missed else 3, at_least=2)
    with pytest.raises(SystemExit) as ended:
        report.end(record=False)
    assert bool(ended.value.code) == bool(status)


def test_figures_replace_the_earlier_ones_of_the_same_program_alone(tmp_path, monkeypatch) -> None:
    document = tmp_path / "performance.md"
    document.write_text("a\n<!-- one -->\nold\n<!-- end of one -->\nb\n<!-- two -->\nkept\n<!-- end of two -->\n")
    monkeypatch.setattr(reports, "DOCUMENT", document)
    report = Report("one")
    report.table(["figure"], [["\\1"]])
    report.record()
    text = document.read_text()
    assert "old" not in text
    assert text.startswith("a\n<!-- one -->\n| figure |")
    assert "| \\1 " in text
    assert text.endswith("<!-- end of one -->\nb\n<!-- two -->\nkept\n<!-- end of two -->\n")


def test_the_rate_falls_quickly_and_rises_slowly_once_it_is_found() -> None:
    assert _change(AIM, searching=False) == 1
    assert _change(AIM / 10, searching=True) == 1.4
    assert _change(AIM / 10, searching=False) == 1.03
    assert _change(AIM * 10, searching=False) == 0.85


def test_the_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([float(number) for number in range(100)], 0.95) == 95
    assert percentile([7.0], 0.99) == 7
