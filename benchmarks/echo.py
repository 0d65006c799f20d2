"""What a stranger can hear behind an answer: the worker's mail for a known address, while it shares the processor.

Decides how it is listened for: ask for a reset once, then open a page again and again until the worker has been there,
and keep the slowest answer. It is a residual that is told and not held: the answer to the question itself says nothing,
and an account is mailed so seldom that nobody can listen to it often.
"""

import random
import time

from benchmarks.crowd import Sort
from benchmarks.difference import Difference, compare
from benchmarks.report import Report
from benchmarks.stopwatch import Form, Stopwatch, no_garbage_collection
from benchmarks.target import Target, target

POLLS_EVERY, LISTENS = 0.2, 0.3  # seconds; shorter than in production, so that less of anything else is heard


def measure(store: str, worker: str, pairs: int) -> Difference:
    """Listen on a site of its own."""
    with target(store, worker, OUTBOX_POLL_SECONDS=POLLS_EVERY) as site:
        return listen(site, pairs)


def listen(site: Target, pairs: int) -> Difference:
    """Ask about so many unknown and known addresses, in turns made by chance, and compare what is heard after each."""
    print(f"listening behind {2 * pairs} answers ...", flush=True)
    crowd = site.crowd({Sort.UNKNOWN: pairs, Sort.KNOWN: pairs})
    stopwatch = Stopwatch(site.port, Form("/password-reset/", 302))
    heard = []
    with no_garbage_collection():
        for _ in range(pairs):
            slowest = {}
            for sort in random.sample(list(crowd), len(crowd)):
                stopwatch.ask(*next(crowd[sort]))
                slowest[sort] = _slowest_page(stopwatch)
            heard.append((slowest[Sort.UNKNOWN], slowest[Sort.KNOWN]))
    return compare(heard)


def _slowest_page(stopwatch: Stopwatch) -> float:
    end, took = time.monotonic() + LISTENS, []
    while time.monotonic() < end:
        took.append(stopwatch.look())
    return max(took)


def write(heard: dict[str, Difference], report: Report) -> None:
    """Show what was heard."""
    if not heard:
        return
    report.say(
        f"What is heard behind the answer: the slowest page in the {LISTENS:g} s after a reset was asked for, in"
    )
    report.say(f"milliseconds, medians, while a worker looks every {POLLS_EVERY:g} s. Not held to anything.\n")
    rows = [
        [worker, found.pairs, *(f"{slowest:.1f}" for slowest in found.medians), f"{found.auc:.2f}"]
        for worker, found in heard.items()
    ]
    report.table(["worker", "pairs", "after unknown", "after known", "AUC"], rows)
