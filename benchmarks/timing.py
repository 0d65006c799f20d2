"""Whether the time of an answer reveals who has an account: `python -m benchmarks.timing`.

Pages are measured in rounds. Each round sends one address of each kind, in random order. After every few
rounds the program waits for the emails that they caused: an answer that shares the process with the delivery of other
emails takes three times as long and varies as much, which would hide what is measured. On a busy machine, where chance
alone could exceed a bound, more rounds follow. A page that is out of bounds is measured once more and the second result
counts: of so many figures, one may be out of bounds by chance.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks import side_channel
from benchmarks.difference import AUC_BOUND, RATIO_BOUND, Difference, compare
from benchmarks.report import Report, clean_up_on_sigterm, evidence
from benchmarks.stopwatch import Form, Stopwatch, no_garbage_collection
from benchmarks.timing_site import ANOTHER, SAME, AddressKind, TimingSite, timing_site

PAIRS = 5000
ROUNDS_AT_ONCE = 30
PORTIONS = 4  # portions of PAIRS, at most


@dataclass(frozen=True, eq=False)
class Page:
    """What is measured.

    Args:
        name: of the page.
        form: that is sent.
        others: the kinds of address that are compared with a known one, and every how many rounds.
        throttled: whether the login throttle rejects the client.
    """

    name: str
    form: Form
    others: dict[AddressKind, int]
    throttled: bool = False


EMAILED = {kind: 1 for kind in AddressKind if kind is not AddressKind.KNOWN}
WRONG = {"password": "not the password of anybody"}
PAGES = (
    Page("reset", Form("/password-reset/", 302), EMAILED),
    Page("registration", Form("/register/", 302), EMAILED),
    Page(
        "login",
        Form("/login/", 200, WRONG),
        {AddressKind.UNKNOWN: 1, AddressKind.DEACTIVATED: 3, AddressKind.UNFINISHED: 3},
    ),
    Page("throttled login", Form("/login/", 429, WRONG), {AddressKind.UNKNOWN: 1}, throttled=True),
)
Times = dict[AddressKind, float]  # of one round, in milliseconds
Figures = dict[AddressKind, Difference]
Measured = dict[tuple[str, str], list[Figures]]  # by page and worker: the first try and perhaps a second


def main() -> None:
    """Measure the pages with the worker in either place, and check the bounds."""
    clean_up_on_sigterm()
    measured: Measured = {}
    for worker in (SAME, ANOTHER):
        with timing_site(worker) as site:
            for page in PAGES:
                measured[page.name, worker] = until_within_bounds(partial(measure, site, page, PAIRS))
    afterwards = {worker: side_channel.measure(worker) for worker in (SAME, ANOTHER)}
    report = evidence("timing", "Timing", "timing")
    write(measured, report)
    side_channel.write(afterwards, report)
    report.end()


def until_within_bounds(attempt: Callable[[], Figures]) -> list[Figures]:
    """Return the figures of an attempt, and those of a second one if the first was out of bounds."""
    found = attempt()
    return [found] if all(figures.is_within_bounds for figures in found.values()) else [found, attempt()]


def measure(site: TimingSite, page: Page, pairs: int) -> Figures:
    """Send a page's form in so many rounds, or more until chance matters little, and compare the times."""
    found = Figures()
    times = list[Times]()
    while not found or (len(times) < PORTIONS * pairs and not all(figures.is_sharp for figures in found.values())):
        print(f"{page.name}: {pairs} rounds ...", flush=True)
        times += _times(site, page, pairs)
        found = {kind: figures_of(kind, times) for kind in page.others}
    for kind, figures in found.items():
        print(f"  {kind}: ratio {figures.ratio:.4f}, AUC {figures.auc:.4f}", flush=True)
    return found


def _times(site: TimingSite, page: Page, number: int) -> list[Times]:
    rounds = [_kinds(page, each) for each in range(number)]
    numbers = {kind: sum(kind in kinds for kinds in rounds) for kind in rounds[0]}
    probes = site.probes(numbers, throttled=page.throttled)
    stopwatch = Stopwatch(site.port, page.form)
    times = list[Times]()
    with no_garbage_collection():
        for each, kinds in enumerate(rounds):
            if each % ROUNDS_AT_ONCE == 0:
                site.wait_until_nothing_is_due()
            random.shuffle(kinds)
            times.append({kind: stopwatch.post(*next(probes[kind])) for kind in kinds})
    return times


def _kinds(page: Page, each: int) -> list[AddressKind]:
    return [AddressKind.KNOWN, *(kind for kind, nth in page.others.items() if each % nth == 0)]


def figures_of(kind: AddressKind, times: Sequence[Times]) -> Difference:
    """Compare a kind of address with known ones, given the times of each round."""
    pairs = [(round_[AddressKind.KNOWN], round_[kind]) for round_ in times if kind in round_]
    return compare(pairs, [round_[AddressKind.KNOWN] for round_ in times if kind not in round_])


def write(measured: Measured, report: Report) -> None:
    """Write what was measured, and check the last try of each page."""
    report.write("Milliseconds of a POST, medians; gunicorn with one process, SQLite. In brackets, the 95 % confidence")
    report.write("interval of the ratio.\n")
    rows = [
        [page, worker, kind, *_row(found), _verdict(found, again=figures is not tries[-1])]
        for (page, worker), tries in measured.items()
        for figures in tries
        for kind, found in figures.items()
    ]
    report.table(["page", "worker", "address", "pairs", "known", "this", "ratio", "AUC", ""], rows)
    for place in dict.fromkeys(worker for _, worker in measured):
        last = [found for (_, worker), tries in measured.items() if worker == place for found in tries[-1].values()]
        report.check(f"worker in {place}: ratio off 1 by", max(found.off_one for found in last), below=RATIO_BOUND)
        report.check(f"worker in {place}: AUC off 0.5 by", max(found.off_half for found in last), below=AUC_BOUND)
    report.write()


def _row(found: Difference) -> list[object]:
    times = (f"{time:.2f}" for time in found.medians)
    ratio = f"{found.ratio:.4f} ({found.interval[0]:.4f} to {found.interval[1]:.4f})"
    return [found.pairs, *times, ratio, f"{found.auc:.4f}"]


def _verdict(found: Difference, *, again: bool) -> str:
    if again:
        return "measured again"
    return "met" if found.is_within_bounds else "MISSED"


if __name__ == "__main__":
    main()
