"""What a load run showed, and its bounds.

Nothing is lost if three accounts agree: what the site accepted (each 302 to a "done" page), what the application
recorded, and the distinct Message-IDs that arrived. Locust counts requests; it has no account of emails.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.report import Report
from benchmarks.sink import Email

KNOWN_ADDRESS = "reset of a known address"
UNKNOWN_ADDRESS = "reset of an unknown address"
REGISTRATION = "registration"
NOTICE = "notice of a new password"
# The events of accepted requests that no email of their own follows.
WITHOUT_EMAIL = ("merged", "expired", "refused")
P95_BOUND = 50  # milliseconds
MEBI = 1024 * 1024


@dataclass
class Emails:
    """Every accepted request, and every email that arrived."""

    accepted: Counter[str] = field(default_factory=Counter)  # by what was requested
    addresses: set[str] = field(default_factory=set)  # that must get an email
    copies: Counter[str] = field(default_factory=Counter)  # by Message-ID
    recipients: set[str] = field(default_factory=set)
    delays: list[float] = field(default_factory=list)  # in seconds
    links: dict[str, str] = field(default_factory=dict)  # the newest, by recipient
    _requested: dict[str, float] = field(default_factory=dict)

    def accept(self, what: str, address: str) -> None:
        """Note that the site has just accepted a request."""
        self.accepted[what] += 1
        if what != UNKNOWN_ADDRESS:
            self.addresses.add(address)
            self._requested[address] = time.monotonic()

    def receive(self, emails: Iterable[Email]) -> None:
        """Note the emails that arrived."""
        for email in emails:
            self.copies[email.message_id] += 1
            self.recipients.add(email.recipient)
            if email.recipient in self._requested:
                self.delays.append(email.at - self._requested.pop(email.recipient))
            if email.link:
                self.links[email.recipient] = email.link


@dataclass
class Run:
    """The figures of a run.

    Args:
        requests: a row for each kind of request: name, number, number per second, and the percentiles in milliseconds.
        p95: of all requests, in milliseconds.
        errors: by what went wrong.
        emails: the account of emails.
        memory: of each process in bytes, after the first minute and at the end.
        events: of the application, by kind.
        rows_left: a sentence for each row that is still in the outbox.
    """

    requests: list[list[object]]
    p95: float
    errors: dict[str, int]
    emails: Emails
    memory: list[dict[str, int]]
    events: dict[str, int]
    rows_left: list[str]


def write(run: Run, report: Report) -> None:
    """Write all figures, and check the bounds."""
    report.write("gunicorn with two processes, PostgreSQL, limits in Redis, and Celery with a worker of two processes.")
    report.write("Milliseconds per request.\n")
    report.table(["request", "number", "a second", "p50", "p95", "p99"], run.requests)
    report.check("95th percentile in ms", run.p95, below=P95_BOUND)
    report.check("errors", sum(run.errors.values()), below=1)
    for error, number in run.errors.items():
        report.write(f"  - {number} × {error}")
    report.write()
    _write_emails(run, report)
    _write_memory(run, report)


def _write_emails(run: Run, report: Report) -> None:
    emails, accepted = len(run.emails.copies), run.emails.accepted
    delivered = run.events.get("mailed", 0)
    notices = accepted[NOTICE]
    others = {kind: run.events.get(kind, 0) for kind in WITHOUT_EMAIL}
    lost = sum(accepted.values()) - accepted[UNKNOWN_ADDRESS] - emails - sum(others.values())
    report.write(f"Accepted: {_listed(accepted)}. Emails that arrived, by distinct Message-ID: {emails}, half of them")
    half, most = (percentile(run.emails.delays, share) for share in (0.5, 0.95))
    report.write(f"within {half:.1f} s, 95 of 100 within {most:.1f} s.")
    report.write(f"Recorded by the application, without notices: {_listed({'mailed': delivered} | others)}.\n")
    report.check("lost: accepted, but neither emailed nor recorded as merged, expired or refused", abs(lost), below=1)
    report.check(
        "addresses without the email they must get", len(run.emails.addresses - run.emails.recipients), below=1
    )
    report.check("rows left in the outbox", len(run.rows_left), below=1)
    for row in run.rows_left[:10]:
        report.write(f"  - {row}")
    report.check("duplicates", sum(run.emails.copies.values()) - emails, below=1)
    report.check("difference between emails recorded and emails arrived", abs(delivered + notices - emails), below=1)
    report.write()


def _write_memory(run: Run, report: Report) -> None:
    before, after = run.memory
    rows = [[name, *(f"{memory[name] / MEBI:.0f}" for memory in run.memory)] for name in before]
    report.write("Resident memory in MiB.\n")
    report.table(["process", "after the first minute", "at the end"], rows)
    report.check("change of resident memory", abs(sum(after.values()) / sum(before.values()) - 1), below=0.1)


def percentile(values: list[float], share: float) -> float:
    """Return the value that a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.items())
