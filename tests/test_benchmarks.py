"""The benchmarks check what they measure: a bound that is missed makes the program fail."""

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from benchmarks.load_report import (
    KNOWN_ADDRESS,
    NOTICE,
    REGISTRATION,
    UNKNOWN_ADDRESS,
    Emails,
    Run,
    percentile,
    write,
)
from benchmarks.load_site import ACCOUNTS, known_address
from benchmarks.report import ROOT, Report
from benchmarks.sink import Email
from benchmarks.size import code_lines

MIB = 1024 * 1024


@pytest.fixture
def report(tmp_path) -> Report:
    return Report(tmp_path / "load.md", "Load", "make load")


def good_run() -> Run:
    """Return a run in which everything went well."""
    emails = Emails(
        accepted=Counter({KNOWN_ADDRESS: 5, UNKNOWN_ADDRESS: 3, REGISTRATION: 2, NOTICE: 1}),
        addresses={"alice@example.com", "bob@example.com"},
        copies=Counter(f"<{number}@example.com>" for number in range(7)),
        recipients={"alice@example.com", "bob@example.com"},
        delays=[0.5],
    )
    # 5 + 2 + 1 requests must be emailed: 7 emails arrived, and 1 request was merged.
    events, memory = {"mailed": 6, "merged": 1}, [{"web": 100 * MIB}, {"web": 105 * MIB}]
    return Run([["page", 60, "1.0", "10", "10", "10"]], 10, {}, emails, memory, events, [])


def test_a_run_in_which_everything_went_well_misses_no_bound(report) -> None:
    write(good_run(), report)
    assert report.missed == []


def slow(run: Run) -> None:
    run.p95 = 50


def failed(run: Run) -> None:
    run.errors["page: status 500 instead of 200"] = 1


def lost(run: Run) -> None:
    run.emails.accepted[KNOWN_ADDRESS] += 1


def without_email(run: Run) -> None:
    run.emails.addresses.add("carol@example.com")


def left(run: Run) -> None:
    run.rows_left.append("register, requested 200 s ago, due in 40 s")


def duplicated(run: Run) -> None:
    run.emails.copies["<1@example.com>"] += 1


def not_recorded(run: Run) -> None:
    run.events["mailed"] -= 1


def grown(run: Run) -> None:
    run.memory[1]["web"] = 111 * MIB


def shrunk(run: Run) -> None:
    run.memory[1]["web"] = 89 * MIB


@pytest.mark.parametrize(
    ("happened", "missed"),
    [
        (slow, "95th percentile"),
        (failed, "errors"),
        (lost, "lost"),
        (without_email, "addresses without the email"),
        (left, "rows left in the outbox"),
        (duplicated, "duplicates"),
        (not_recorded, "difference between emails recorded"),
        (grown, "change of resident memory"),
        (shrunk, "change of resident memory"),
    ],
)
def test_a_run_in_which_one_thing_went_wrong_misses_that_bound(happened: Any, missed: str, report) -> None:
    run = good_run()
    happened(run)
    write(run, report)
    assert len(report.missed) == 1
    assert report.missed[0].startswith(missed)


@pytest.mark.parametrize("happened", [failed, left])
def test_errors_and_rows_that_are_left_are_described(happened, report, capsys: pytest.CaptureFixture[str]) -> None:
    run = good_run()
    happened(run)
    write(run, report)
    sentence = (run.rows_left or ["1 × page: status 500 instead of 200"])[0]
    assert f"  - {sentence}\n" in capsys.readouterr().out


def test_emails_are_counted_by_message_id_and_their_links_are_kept() -> None:
    emails = Emails()
    emails.accept(KNOWN_ADDRESS, "alice@example.com")
    emails.accept(UNKNOWN_ADDRESS, "nobody@example.com")
    email = Email(1e9, "<1@example.com>", "alice@example.com", "http://localhost/link", 1)
    emails.receive([email, email])
    assert (emails.addresses, emails.recipients) == ({"alice@example.com"}, {"alice@example.com"})
    assert emails.copies == {"<1@example.com>": 2}
    assert emails.links == {"alice@example.com": "http://localhost/link"}
    assert len(emails.delays) == 1


def test_no_address_is_requested_twice_before_all_others() -> None:
    """A sixth email within the hour would wait for its end."""
    assert len({known_address(number) for number in range(ACCOUNTS["known"])}) == ACCOUNTS["known"]


@pytest.mark.parametrize(("figure", "fails"), [(3, False), (1, True)])
def test_a_missed_bound_ends_the_program_with_status_1(figure: int, fails: bool, report) -> None:
    report.check("a ratio", figure, at_least=2)
    with pytest.raises(SystemExit) as ended:
        report.end()
    assert bool(ended.value.code) == fails


def test_the_evidence_is_written_only_on_request(report, monkeypatch) -> None:
    report.table(["figure"], [["\\1"]])
    assert report.status() == 0
    assert not report.path.exists()
    report.path.write_text("old")
    monkeypatch.setenv("RECORD", "1")
    assert report.status() == 0
    text = report.path.read_text()
    assert text.startswith("# Load\n\nPrinted by `make load` on 2")
    assert text.endswith("\n\n| figure |\n| ------ |\n| \\1     |\n")
    assert "old" not in text


def test_the_percentile_is_a_value_of_the_sample() -> None:
    assert percentile([float(number) for number in range(100)], 0.95) == 95
    assert percentile([7.0], 0.99) == 7


def test_comments_docstrings_and_blank_lines_are_not_code() -> None:
    text = '"""One.\n\nTwo.\n"""\n\n# three\nvalue = (\n    1,\n)\n\n'
    text += 'def f():\n    """Four."""\n    return """five\n    six"""\n'
    assert code_lines(text) == {7, 8, 9, 11, 13, 14}


def test_one_reset_uses_at_most_24_of_our_files() -> None:
    traced = subprocess.run(
        [sys.executable, "-m", "benchmarks.trace"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "pwreset/password_reset/views.py: " in traced.stdout
    assert traced.returncode == 0, traced.stdout[-300:] + traced.stderr
