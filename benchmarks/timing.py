"""Whether time tells who has an account: `python -m benchmarks.timing`.

Decides which pages and addresses are compared, and how: in rounds that ask once about an address of each sort, in an
order made by chance. After every few rounds the mail that they brought is let go out: an answer that has to share the
process with mail for others takes three times as long and scatters as much, and would hide what is looked for. Where
a machine is so restless that chance alone could pass a bound, more rounds are asked. A page whose figures are out of
bounds is measured once more, and then that counts: of so many figures one may be off by chance.
"""

import argparse
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import echo
from benchmarks.crowd import Sort
from benchmarks.difference import AUC_BOUND, RATIO_BOUND, Difference, compare
from benchmarks.report import Report, tidy_up_on_sigterm
from benchmarks.stopwatch import Form, Stopwatch, no_garbage_collection
from benchmarks.stores import STORES
from benchmarks.target import ANOTHER, SAME, Target, target

PAIRS, ECHOES = 5000, 100
ROUNDS_AT_ONCE, PORTIONS = 30, 4  # portions of so many pairs, at most
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "security.md"
MARKED = re.compile("(?<=<!-- timing:start -->\n).*(?=<!-- timing:end -->)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Page:
    """What is measured.

    Args:
        name: of the page.
        form: that is sent.
        others: the sorts that are compared with a known address, and every how many rounds.
        waits: whether whoever asks has to wait, after too many failed logins.
    """

    name: str
    form: Form
    others: dict[Sort, int]
    waits: bool = False


MAILED = {Sort.UNKNOWN: 1, Sort.DEACTIVATED: 1, Sort.UNFINISHED: 1, Sort.THROTTLED: 1}
WRONG = {"password": "not the password of anybody"}
PAGES = (
    Page("reset", Form("/password-reset/", 302), MAILED),
    Page("registration", Form("/register/", 302), MAILED),
    Page("login", Form("/login/", 200, WRONG), {Sort.UNKNOWN: 1, Sort.DEACTIVATED: 3, Sort.UNFINISHED: 3}),
    Page("login that has to wait", Form("/login/", 429, WRONG), {Sort.UNKNOWN: 1}, waits=True),
)
Times = dict[Sort, float]  # of one round, in milliseconds
Figures = dict[Sort, Difference]
Measured = dict[tuple[str, str], list[Figures]]  # by page and worker; the first try, and perhaps another


class TimingReport(Report):
    """Figures that stand in docs/security.md."""

    def record(self) -> None:
        """Put them all between the marks there."""
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(MARKED.sub(lambda _: "\n".join([*self._lines, ""]), text), encoding="utf-8")


def main() -> None:
    """Measure and judge."""
    options = _options()
    tidy_up_on_sigterm()
    pages = [page for page in PAGES if options.page in {None, page.name}]
    workers = [options.worker] if options.worker else [SAME, ANOTHER]
    measured, heard = measure(pages, workers, options.store, options.pairs), {}
    if options.echoes:
        heard = {worker: echo.measure(options.store, worker, options.echoes) for worker in workers}
    report = TimingReport("benchmarks.timing")
    write(measured, report, options.store)
    echo.write(heard, report)
    report.end(record=options.record)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of a known and an unknown address, for each page")
    parser.add_argument("--echoes", type=int, default=ECHOES, help="how often to listen behind the answer; 0: never")
    parser.add_argument("--store", choices=STORES, default="SQLite")
    parser.add_argument("--page", choices=[page.name for page in PAGES], help="this one only")
    parser.add_argument("--worker", choices=[SAME, ANOTHER], help="deliver there only")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/security.md")
    options = parser.parse_args()
    if options.record and not MARKED.search(DOCUMENT.read_text(encoding="utf-8")):
        parser.error("docs/security.md has no marks to write between")
    return options


def measure(pages: Sequence[Page], workers: Sequence[str], store: str, pairs: int) -> Measured:
    """Measure pages, each with the mail delivered there and there."""
    measured: Measured = {}
    for worker in workers:
        with target(store, worker) as site:
            for page in pages:
                measured[page.name, worker] = until_within_bounds(partial(ask, site, page, pairs))
    return measured


def until_within_bounds(attempt: Callable[[], Figures]) -> list[Figures]:
    """Return what an attempt found, and what another one did if that was out of bounds."""
    found = attempt()
    return [found] if all(figures.is_within_bounds for figures in found.values()) else [found, attempt()]


def ask(site: Target, page: Page, pairs: int) -> Figures:
    """Send a page's form in so many rounds, or more until chance is small, and compare how long the answers took."""
    found, times = Figures(), list[Times]()
    while not found or (len(times) < PORTIONS * pairs and not all(figures.is_sharp for figures in found.values())):
        print(f"{page.name}: {pairs} rounds ...", flush=True)
        times += _times(site, page, pairs)
        found = {sort: figures_of(sort, times) for sort in page.others}
    for sort, figures in found.items():
        print(f"  {sort}: ratio {figures.ratio:.4f}, AUC {figures.auc:.4f}", flush=True)
    return found


def _times(site: Target, page: Page, number: int) -> list[Times]:
    rounds = [[Sort.KNOWN, *(sort for sort, nth in page.others.items() if each % nth == 0)] for each in range(number)]
    crowd = site.crowd({sort: sum(sort in asked for asked in rounds) for sort in rounds[0]}, waits=page.waits)
    stopwatch, times = Stopwatch(site.port, page.form), list[Times]()
    with no_garbage_collection():
        for each, asked in enumerate(rounds):
            if each % ROUNDS_AT_ONCE == 0:
                site.wait_until_nothing_is_due()
            random.shuffle(asked)
            times.append({sort: stopwatch.ask(*next(crowd[sort])) for sort in asked})
    return times


def figures_of(sort: Sort, times: Sequence[Times]) -> Difference:
    """Compare a sort with known addresses, given what each round took."""
    pairs = [(took[Sort.KNOWN], took[sort]) for took in times if sort in took]
    return compare(pairs, [took[Sort.KNOWN] for took in times if sort not in took])


def write(measured: Measured, report: Report, store: str) -> None:
    """Show what was measured, and judge the last try of each page."""
    report.say(f"Milliseconds of a POST, medians; gunicorn with one process, {store}. In brackets, between what chance")
    report.say("lets the ratio lie in 95 of 100 cases.\n")
    rows = [
        [page, worker, sort, *_row(found), _verdict(found, again=figures is not tries[-1])]
        for (page, worker), tries in measured.items()
        for figures in tries
        for sort, found in figures.items()
    ]
    report.table(["page", "worker", "address", "pairs", "known", "this", "ratio", "AUC", ""], rows)
    for place in dict.fromkeys(worker for _, worker in measured):
        last = [found for (_, worker), tries in measured.items() if worker == place for found in tries[-1].values()]
        report.hold(f"worker in {place}: ratio off 1 by", max(found.off_one for found in last), below=RATIO_BOUND)
        report.hold(f"worker in {place}: AUC off 0.5 by", max(found.off_half for found in last), below=AUC_BOUND)
    report.say()


def _row(found: Difference) -> list[object]:
    times = (f"{time:.2f}" for time in found.medians)
    ratio = f"{found.ratio:.4f} ({found.interval[0]:.4f} to {found.interval[1]:.4f})"
    return [found.pairs, *times, ratio, f"{found.auc:.4f}"]


def _verdict(found: Difference, *, again: bool) -> str:
    if again:
        return "measured again"
    return "kept" if found.is_within_bounds else "MISSED"


if __name__ == "__main__":
    main()
