"""What a load run showed, and whether it kept what it is held to.

Decides how the books are compared: what visitors were told was accepted, what the database says became of it, and what
came at the mail server.
"""

from collections import defaultdict
from typing import TYPE_CHECKING

from benchmarks.pace import BOUND, percentile
from benchmarks.report import Report
from benchmarks.visits import NOTICE, UNKNOWN_ADDRESS

if TYPE_CHECKING:
    from benchmarks.load import Run

# Why an accepted request is not a mail of its own.
ACCOUNTED_FOR = ("merged", "expired", "refused")
MEBI = 1024 * 1024


def write(run: "Run", report: Report, delivery: str) -> None:
    """Write everything that was seen, and judge."""
    how = "Celery (a worker of two processes, and beat)" if delivery == "celery" else "two `flask outbox run`"
    report.say(f"{run.minutes:g} minutes after one that looked for the rate; gunicorn with two processes, PostgreSQL,")
    report.say(f"limits in Redis, {how}.\n")
    _write_speed(run, report)
    _write_books(run, report)
    _write_memory(run, report)
    _write_processors(run, report)


def _write_speed(run: "Run", report: Report) -> None:
    measured = [(kind, took) for kind, ended, took in run.books.seconds if run.began <= ended < run.ended]
    by_kind: dict[str, list[float]] = defaultdict(list, {"all": [took for _, took in measured]})
    for kind, took in measured:
        by_kind[kind].append(took)
    seconds = run.ended - run.began
    report.say("Milliseconds from the moment a request was meant to start to the end of its answer.\n")
    rows = [
        [kind, len(taken), f"{len(taken) / seconds:.1f}", *(_milliseconds(taken, share) for share in (0.5, 0.95, 0.99))]
        for kind, taken in sorted(by_kind.items(), key=lambda item: -len(item[1]))
    ]
    report.table(["request", "number", "a second", "p50", "p95", "p99"], rows)
    lowest, highest = min(run.rates), max(run.rates)
    report.say(f"{lowest:.1f} to {highest:.1f} visits a second: {_listed(run.books.visits)}.\n")
    report.hold("95th percentile in ms", percentile(by_kind["all"], 0.95) * 1000, below=BOUND * 1000)
    report.hold("errors", len(run.books.errors), below=1)
    for error in run.books.errors[:10]:
        report.say(f"  - {error}")
    report.say()


def _write_books(run: "Run", report: Report) -> None:
    accepted, mails = run.books.accepted, len(run.post.copies)
    events = {kind: run.events.get(kind, 0) for kind in ("mailed", *ACCOUNTED_FOR)}
    owed = sum(accepted.values()) - accepted[UNKNOWN_ADDRESS]
    lost = owed - mails - sum(events[kind] for kind in ACCOUNTED_FOR)
    report.say(f"Accepted: {_listed(accepted)}. Mailed: {mails}, by distinct Message-ID, half of them")
    report.say(
        f"within {percentile(run.post.delays, 0.5):.1f} s, 95 of 100 within {percentile(run.post.delays, 0.95):.1f} s."
    )
    report.say(f"The application's own books: {_listed(events)}; notices are not in them.\n")
    report.hold("lost: accepted, and neither mailed, merged, expired nor refused", abs(lost), below=1)
    forgotten = run.books.addresses - run.post.recipients
    report.hold("addresses that are owed a mail and got none", len(forgotten), below=1)
    report.hold("left in the outbox", sum(run.waiting.values()), below=1)
    for sentence in run.left:
        report.say(f"  - {sentence}")
    report.hold("duplicates", sum(run.post.copies.values()) - mails, below=1)
    notices = accepted[NOTICE]
    report.hold(
        "mails that the application's books and the mail server count apart",
        abs(events["mailed"] + notices - mails),
        below=1,
    )
    report.say()


def _write_memory(run: "Run", report: Report) -> None:
    before, after = run.memory
    rows = [[name, f"{before.get(name, 0) / MEBI:.0f}", f"{after.get(name, 0) / MEBI:.0f}"] for name in before | after]
    report.say("Resident memory in MiB.\n")
    rows.append(["all", *(f"{sum(memory.values()) / MEBI:.0f}" for memory in run.memory)])
    report.table(["process", "after the first minute", "at the end"], rows)
    grown = sum(after.values()) / sum(before.values())
    report.hold("resident memory at the end, off that after the first minute by", abs(grown - 1), below=0.1)
    report.say()


def _write_processors(run: "Run", report: Report) -> None:
    seconds = run.ended - run.began
    rows = [[name, f"{used / seconds:.2f}"] for name, used in run.processors.items()]
    report.say("Processors used on average, of two; PostgreSQL and Redis have most of the rest.\n")
    report.table(["by", "processors"], rows)


def _milliseconds(taken: list[float], share: float) -> str:
    return f"{percentile(taken, share) * 1000:.0f}"


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in numbers.items())
