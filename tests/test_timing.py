"""The judge of time: a page that tells who has an account is caught, and chance alone is not."""

import random
from collections.abc import Sequence

import pytest

from benchmarks import echo, timing
from benchmarks.crowd import Sort
from benchmarks.difference import Difference, auc, compare
from benchmarks.report import Report
from benchmarks.target import SAME, target
from benchmarks.timing import PAGES, Figures, TimingReport, figures_of, until_within_bounds
from pwreset.extensions import db
from pwreset.models import LoginFailures, OutboxMessage

FAIR = Difference(5000, 1.002, (0.999, 1.005), 0.507, (4.0, 4.0))
SLOWER = Difference(5000, 1.02, (1.017, 1.023), 0.507, (4.0, 4.1))
MORE_OFTEN_SLOWER = Difference(5000, 1.002, (0.999, 1.005), 0.53, (4.0, 4.0))


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ([1, 2, 3], 0.5),
        ([4, 5], 1),
        ([0], 0),
        ([3], 2.5 / 3),  # above two of three, and a tie
        ([2.5, 0.5, 9], (2 + 0 + 3) / 9),
    ],
)
def test_the_auc_is_how_often_the_other_takes_longer(others, found) -> None:
    assert auc([3, 1, 2], others) == pytest.approx(found)


def made_up(rounds: int, *, slower: float) -> Sequence[tuple[float, float]]:
    """Times as a machine gives them that slows down tenfold meanwhile, in pairs."""
    chance = random.Random(1)  # noqa: S311 (made-up numbers)
    paces = [4 + 36 * number / rounds for number in range(rounds)]
    return [(pace * chance.lognormvariate(0, 0.1), pace * slower * chance.lognormvariate(0, 0.1)) for pace in paces]


def test_times_of_one_kind_are_within_bounds_on_a_machine_that_slows_down() -> None:
    assert compare(made_up(5000, slower=1)).is_within_bounds


def test_two_in_a_hundred_are_out_of_bounds_on_a_machine_that_slows_down() -> None:
    """Over all times they would be lost in what the machine does; in one round it does the same to both."""
    found = compare(made_up(5000, slower=1.02))
    assert found.off_half < 0.02
    assert found.ratio == pytest.approx(1.02, abs=0.007)
    assert not found.is_within_bounds


def test_one_answer_in_ten_that_is_slow_is_out_of_bounds() -> None:
    """No median shows it."""
    chance = random.Random(1)  # noqa: S311 (made-up numbers)
    times = [(chance.gauss(10, 1), chance.gauss(30 if chance.random() < 0.1 else 10, 1)) for _ in range(5000)]
    found = compare(times)
    assert found.auc == pytest.approx(0.55, abs=0.02)
    assert not found.is_within_bounds


@pytest.mark.parametrize("slower", [0.99, 1, 1.05])
def test_the_interval_holds_the_ratio_and_narrows_with_more_pairs(slower) -> None:
    few, many = (compare(made_up(rounds, slower=slower)).interval for rounds in (100, 10_000))
    assert few[0] < many[0] < slower < many[1] < few[1]


def test_known_addresses_of_every_round_count_for_the_auc_and_only_pairs_for_the_ratio() -> None:
    both, alone = {Sort.KNOWN: 2.0, Sort.DEACTIVATED: 3.0}, {Sort.KNOWN: 9.0}
    found = figures_of(Sort.DEACTIVATED, [both, alone])
    assert (found.pairs, found.ratio, found.auc) == (1, 1.5, 0.5)


@pytest.mark.parametrize(
    ("tries", "missed"),
    [
        ([FAIR], []),
        ([SLOWER, FAIR], []),
        ([SLOWER, SLOWER], ["ratio off 1 by"]),
        ([MORE_OFTEN_SLOWER, MORE_OFTEN_SLOWER], ["AUC off 0.5 by"]),
        ([SLOWER, MORE_OFTEN_SLOWER], ["AUC off 0.5 by"]),
    ],
)
def test_the_last_try_of_a_page_is_held_to_both_bounds(tries, missed) -> None:
    report = Report("test")
    fair = [{Sort.UNKNOWN: FAIR}]
    judged = [{Sort.UNKNOWN: FAIR, Sort.DEACTIVATED: found} for found in tries]
    timing.write({("login", SAME): judged, ("reset", SAME): fair}, report, "SQLite")
    assert report.missed == [f"worker in {SAME}: {what}" for what in missed]


@pytest.mark.parametrize(
    ("found", "tries"), [([FAIR, SLOWER], 1), ([SLOWER, FAIR], 2), ([MORE_OFTEN_SLOWER, SLOWER, FAIR], 2)]
)
def test_a_page_is_measured_once_more_if_it_was_out_of_bounds_and_never_again(found, tries) -> None:
    attempts = iter(found)

    def attempt() -> Figures:
        return {Sort.UNKNOWN: next(attempts)}

    assert [figures[Sort.UNKNOWN] for figures in until_within_bounds(attempt)] == found[:tries]


def test_figures_replace_what_stands_between_the_marks(tmp_path, monkeypatch) -> None:
    document = tmp_path / "security.md"
    document.write_text("a\n<!-- timing:start -->\nold\n<!-- timing:end -->\nb\n")
    monkeypatch.setattr(timing, "DOCUMENT", document)
    report = TimingReport("test")
    report.say("new")
    report.record()
    report.record()
    assert document.read_text() == "a\n<!-- timing:start -->\nnew\n<!-- timing:end -->\nb\n"


def test_every_page_is_asked_in_rounds_on_a_real_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty rounds are too few to say anything of time, so there are twenty more."""
    monkeypatch.setattr(timing, "PORTIONS", 2)
    with target("SQLite", SAME) as site:
        pairs = {page.name: [found.pairs for found in timing.ask(site, page, 20).values()] for page in PAGES}
        heard = echo.listen(site, 1).pairs
        with site.app.app_context():
            failures, throttled = db.session.query(LoginFailures).count(), db.session.query(OutboxMessage).count()
    assert pairs == {
        "reset": [40, 40, 40, 40],
        "registration": [40, 40, 40, 40],
        "login": [40, 14, 14],
        "login that has to wait": [40],
    }
    assert heard == 1
    assert failures == 40 + 40 + 14 + 14 + 40 + 40  # one for each login, and those who wait
    assert throttled >= 40 + 40  # put off for an hour, all the others delivered
