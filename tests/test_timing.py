"""The timing benchmark notices a page that reveals who has an account, and is not misled by chance."""

import random
from collections.abc import Sequence

import pytest

from benchmarks import timing
from benchmarks.difference import Difference, auc, compare
from benchmarks.report import evidence
from benchmarks.side_channel import slowest_pages
from benchmarks.timing import PAGES, Figures, figures_of, until_within_bounds
from benchmarks.timing_site import SAME, AddressKind, timing_site
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


def made_up_times(rounds: int, *, slower: float) -> Sequence[tuple[float, float]]:
    """Return pairs of times of a machine that becomes ten times slower meanwhile."""
    chance = random.Random(1)  # noqa: S311 (made-up numbers)
    paces = [4 + 36 * number / rounds for number in range(rounds)]
    return [(pace * chance.lognormvariate(0, 0.1), pace * slower * chance.lognormvariate(0, 0.1)) for pace in paces]


def test_equal_times_are_within_bounds_on_a_machine_that_slows_down() -> None:
    assert compare(made_up_times(5000, slower=1)).is_within_bounds


def test_a_difference_of_two_percent_is_out_of_bounds_on_a_machine_that_slows_down() -> None:
    """Over all times the difference would vanish in the noise; within one round the noise affects both."""
    found = compare(made_up_times(5000, slower=1.02))
    assert found.off_half < 0.02
    assert found.ratio == pytest.approx(1.02, abs=0.007)
    assert not found.is_within_bounds


def test_one_slow_answer_in_ten_is_out_of_bounds() -> None:
    """No median shows it."""
    chance = random.Random(1)  # noqa: S311 (made-up numbers)
    times = [(chance.gauss(10, 1), chance.gauss(30 if chance.random() < 0.1 else 10, 1)) for _ in range(5000)]
    found = compare(times)
    assert found.auc == pytest.approx(0.55, abs=0.02)
    assert not found.is_within_bounds


@pytest.mark.parametrize("slower", [0.99, 1, 1.05])
def test_the_interval_holds_the_ratio_and_narrows_with_more_pairs(slower) -> None:
    few, many = (compare(made_up_times(rounds, slower=slower)).interval for rounds in (100, 10_000))
    assert few[0] < many[0] < slower < many[1] < few[1]


def test_known_addresses_of_every_round_count_for_the_auc_and_only_pairs_for_the_ratio() -> None:
    both, alone = {AddressKind.KNOWN: 2.0, AddressKind.DEACTIVATED: 3.0}, {AddressKind.KNOWN: 9.0}
    found = figures_of(AddressKind.DEACTIVATED, [both, alone])
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
def test_both_bounds_apply_to_the_last_try_of_a_page(tries, missed) -> None:
    report = evidence("timing", "Timing", "timing")
    fair = [{AddressKind.UNKNOWN: FAIR}]
    tries_of_a_page = [{AddressKind.UNKNOWN: FAIR, AddressKind.DEACTIVATED: found} for found in tries]
    timing.write({("login", SAME): tries_of_a_page, ("reset", SAME): fair}, report)
    assert report.missed == [f"worker in {SAME}: {what}" for what in missed]


@pytest.mark.parametrize(
    ("found", "tries"), [([FAIR, SLOWER], 1), ([SLOWER, FAIR], 2), ([MORE_OFTEN_SLOWER, SLOWER, FAIR], 2)]
)
def test_a_page_is_measured_once_more_if_it_was_out_of_bounds_and_never_again(found, tries) -> None:
    attempts = iter(found)

    def attempt() -> Figures:
        return {AddressKind.UNKNOWN: next(attempts)}

    assert [figures[AddressKind.UNKNOWN] for figures in until_within_bounds(attempt)] == found[:tries]


def test_every_page_is_measured_in_rounds_on_a_real_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty rounds are too few for a verdict, so there are twenty more."""
    monkeypatch.setattr(timing, "PORTIONS", 2)
    with timing_site(SAME) as site:
        pairs = {page.name: [found.pairs for found in timing.measure(site, page, 20).values()] for page in PAGES}
        watched = slowest_pages(site, 1).pairs
        with site.app.app_context():
            failures, deferred = db.session.query(LoginFailures).count(), db.session.query(OutboxMessage).count()
    assert pairs == {
        "reset": [40, 40, 40, 40],
        "registration": [40, 40, 40, 40],
        "login": [40, 14, 14],
        "throttled login": [40],
    }
    assert watched == 1
    assert failures == 40 + 40 + 14 + 14 + 40 + 40  # one for each login, and those of throttled clients
    assert deferred >= 40 + 40  # by an hour; all the others are delivered
