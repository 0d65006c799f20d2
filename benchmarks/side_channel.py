"""What an attacker can measure after an answer: the worker that emails a known address shares the processor.

It requests one reset, then opens a page again and again until the worker has run, and keeps the slowest answer. This is
a documented residual risk without a bound: the answer to the request itself reveals nothing, and the cooldown limits
how often an account can be measured.
"""

import random
import time

from benchmarks.difference import Difference, compare
from benchmarks.report import Report
from benchmarks.stopwatch import Form, Stopwatch, no_garbage_collection
from benchmarks.timing_site import AddressKind, TimingSite, timing_site

PAIRS = 100
POLL_SECONDS = 0.2
WINDOW = 0.3  # seconds; shorter than in production, so that less of anything else is measured


def measure(worker: str) -> Difference:
    """Measure on a site of its own."""
    with timing_site(worker, OUTBOX_POLL_SECONDS=POLL_SECONDS) as site:
        return slowest_pages(site, PAIRS)


def slowest_pages(site: TimingSite, pairs: int) -> Difference:
    """Request resets of unknown and known addresses in random order, and compare the slowest page after each."""
    print(f"watching the pages after {2 * pairs} answers ...", flush=True)
    probes = site.probes({AddressKind.UNKNOWN: pairs, AddressKind.KNOWN: pairs})
    stopwatch = Stopwatch(site.port, Form("/password-reset/", 302))
    times = []
    with no_garbage_collection():
        for _ in range(pairs):
            slowest = {}
            for kind in random.sample(list(probes), len(probes)):
                stopwatch.post(*next(probes[kind]))
                slowest[kind] = _slowest_page(stopwatch)
            times.append((slowest[AddressKind.UNKNOWN], slowest[AddressKind.KNOWN]))
    return compare(times)


def _slowest_page(stopwatch: Stopwatch) -> float:
    end = time.monotonic() + WINDOW
    slowest = 0.0
    while time.monotonic() < end:
        slowest = max(slowest, stopwatch.get())
    return slowest


def write(measured: dict[str, Difference], report: Report) -> None:
    """Write what was measured."""
    report.write(f"After the answer: the slowest page in the {WINDOW:g} s after a reset request, in milliseconds,")
    report.write(f"medians, while a worker polls every {POLL_SECONDS:g} s. There is no bound.\n")
    rows = [
        [worker, found.pairs, *(f"{slowest:.1f}" for slowest in found.medians), f"{found.auc:.2f}"]
        for worker, found in measured.items()
    ]
    report.table(["worker", "pairs", "after unknown", "after known", "AUC"], rows)
