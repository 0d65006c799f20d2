"""How many emails a second are delivered: `python -m benchmarks.delivery`.

It compares our worker, with rows in the outbox and one connection for all emails, and Flask-Mail alone, with a
connection for each; then one worker and eight with a slow SMTP server. The messages and the server are the same, and
the contenders run alternately, so that other load on the machine affects all of them.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import flask_mail
from flask import Flask
from sqlalchemy import delete, select, update

from benchmarks.latency_proxy import latency_proxy
from benchmarks.processes import OUTBOX_RUN, running
from benchmarks.report import Report, clean_up_on_sigterm, evidence
from benchmarks.sink import Sink, smtp_sink
from benchmarks.stores import STORES, add_requests, add_users, application, postgresql, temporary_folder
from pwreset.extensions import db, mail
from pwreset.models import OutboxMessage, SecurityEvent, User
from pwreset.outbox import emails
from pwreset.outbox.delivery import deliver_pending
from pwreset.passwords.hashing import make_password

REPEATS = 5
ROUND_TRIP = 0.020  # seconds
LATENCY = 0.3
WORKERS = 8
WINDOW = 36.0
ALONE = "Flask-Mail alone, a connection for each email"
KEPT_CONNECTION = "our connection alone, kept open, without an outbox"
Contender = Callable[[int], float]


def main() -> None:
    """Measure, and check the bounds."""
    clean_up_on_sigterm()
    report = evidence("delivery", "Delivery", "bench")
    compare_with_flask_mail(report)
    compare_workers(report)
    report.end()


def compare_with_flask_mail(report: Report) -> None:
    """Compare one connection for all emails with one for each."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        sink = stack.enter_context(smtp_sink(folder))
        os.environ["SSL_CERT_FILE"] = str(sink.certificate)
        far = stack.enter_context(latency_proxy(folder, sink.port, ROUND_TRIP))
        here = _measure(folder, sink, sink.port, 200)
        there = _measure(folder, sink, far, 40)
    report.write(f"Milliseconds per email over STARTTLS with a login, medians of {REPEATS} runs; in brackets, how many")
    report.write("times the emails that Flask-Mail alone delivers.\n")
    head = ["", "loopback", f"round trip of {ROUND_TRIP * 1000:g} ms"]
    report.table(head, [[name, *(_figure(name, runs) for runs in (here, there))] for name in here])
    for name in STORES:
        report.check(f"{name}, {ROUND_TRIP * 1000:g} ms away, times Flask-Mail", _times(name, there), at_least=3)
    report.write()


def _times(name: str, runs: dict[str, list[float]]) -> float:
    return median(runs[ALONE]) / median(runs[name])


def _figure(name: str, runs: dict[str, list[float]]) -> str:
    return f"{median(runs[name]) * 1000:.1f} ({_times(name, runs):.1f})"


def _measure(folder: Path, sink: Sink, port: int, count: int) -> dict[str, list[float]]:
    """Let the contenders deliver alternately, and return the seconds per email of each run."""
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for name, store in STORES.items():
            database = stack.enter_context(store(folder))
            app = stack.enter_context(application(folder, sink.settings(port) | database))
            contenders[name] = _worker(app, count)
        contenders[KEPT_CONNECTION] = _kept_connection(app)
        contenders[ALONE] = _flask_mail_alone(app)
        runs: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(REPEATS):
            for name, deliver in contenders.items():
                runs[name].append(deliver(count) / count)
                arrived = {email.message_id for email in sink.new_emails()}
                assert len(arrived) == count, f"{name}: {len(arrived)} of {count} emails arrived"
    return runs


def _worker(app: Flask, count: int) -> Contender:
    with app.app_context():
        add_users(_addresses(count), make_password(None))

    def deliver(count: int) -> float:
        with app.app_context():
            _end_cooldowns()
            add_requests(_addresses(count))
        with app.app_context():
            start = time.perf_counter()
            done, problem = deliver_pending()
            seconds = time.perf_counter() - start
        assert (done, problem) == (count, None), problem
        return seconds

    return deliver


def _kept_connection(app: Flask) -> Contender:
    def deliver(count: int) -> float:
        with app.app_context():
            subject, body, html = _texts()
            start = time.perf_counter()
            with mail.connect() as connection:
                for address in _addresses(count):
                    connection.send(emails.Message(subject=subject, recipients=[address], body=body, html=html))
            return time.perf_counter() - start

    return deliver


def _flask_mail_alone(app: Flask) -> Contender:
    plain = Flask("plain")
    plain.config.update({name: value for name, value in app.config.items() if name.startswith("MAIL_")})
    theirs = flask_mail.Mail(plain)
    with app.app_context():
        subject, body, html = _texts()

    def deliver(count: int) -> float:
        with plain.app_context():
            start = time.perf_counter()
            for address in _addresses(count):
                theirs.send(flask_mail.Message(subject=subject, recipients=[address], body=body, html=html))
            return time.perf_counter() - start

    return deliver


def _texts() -> tuple[str, str, str]:
    """Return the subject and the parts of a reset email, as the worker writes it."""
    add_requests(_addresses(1))
    row = db.session.scalars(select(OutboxMessage)).one()
    draft = emails.draft_for(row)
    assert draft
    written = emails.write(row, draft)
    db.session.delete(row)
    db.session.commit()
    return written.subject, str(written.body), str(written.html)


def _end_cooldowns() -> None:
    """Allow every account another email at once."""
    db.session.execute(update(User).values(cooldown_started_at=None))
    db.session.execute(delete(SecurityEvent))
    db.session.commit()


def _addresses(count: int) -> list[str]:
    return [f"robin.{number}@example.com" for number in range(count)]


def compare_workers(report: Report) -> None:
    """Compare one worker process with eight, with a server that is slow to reply."""
    rates = {number: _rate(number) for number in (1, WORKERS)}
    report.write(f"Emails a second with {LATENCY * 1000:g} ms before every reply of the server, `flask outbox run` on")
    report.write(f"PostgreSQL, {WINDOW:g} s each.\n")
    report.table(["workers", "emails a second"], [[number, f"{rate:.2f}"] for number, rate in rates.items()])
    report.check(f"{WORKERS} workers, times one", rates[WORKERS] / rates[1], at_least=7)
    report.write()


def _rate(number: int) -> float:
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        sink = stack.enter_context(smtp_sink(folder, LATENCY))
        settings = sink.settings() | stack.enter_context(postgresql(folder))
        with application(folder, settings) as app, app.app_context():
            count = int(number * (WINDOW + 30))
            add_users(_addresses(count), make_password(None))
            add_requests(_addresses(count))
        for _ in range(number):
            stack.enter_context(running(folder, *OUTBOX_RUN, **settings))
        return _arrivals(sink, number) / WINDOW


def _arrivals(sink: Sink, number: int) -> int:
    """Count the emails of a time window that begins when every worker has delivered one."""
    connections: set[int] = set()
    while len(connections) < number:
        time.sleep(0.1)
        connections |= {email.connection for email in sink.new_emails()}
    start = time.monotonic()
    time.sleep(WINDOW)
    return sum(start < email.at <= start + WINDOW for email in sink.new_emails())


if __name__ == "__main__":
    main()
