"""How many mails a second leave: `python -m benchmarks.delivery`.

Decides what is compared: our worker, with rows in the outbox and one connection for all, and Flask-Mail alone, with a
connection for each mail; then one worker and eight at a slow mail server. Same messages, same sink, same run, and the
contenders take turns, so that whatever else the machine does falls on all of them.
"""

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import flask_mail
from flask import Flask
from sqlalchemy import delete, select, update

from benchmarks.distance import distance
from benchmarks.processes import running, workers
from benchmarks.report import Report, tidy_up_on_sigterm
from benchmarks.sink import Sink
from benchmarks.stores import STORES, add_requests, add_users, application, own_folder, postgresql
from pwreset.extensions import db, mail
from pwreset.models import OutboxMessage, SecurityEvent, User
from pwreset.outbox import emails
from pwreset.outbox.delivery import deliver_pending
from pwreset.passwords import make_password

REPEATS = 5
ROUND_TRIP = 0.020  # seconds
LATENCY, WORKERS, WINDOW = 0.3, 8, 36.0
Contender = Callable[[int], float]


def main() -> None:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the figures into docs/performance.md")
    record = parser.parse_args().record
    tidy_up_on_sigterm()
    report = Report("benchmarks.delivery")
    compare_with_flask_mail(report)
    compare_workers(report)
    report.end(record=record)


def compare_with_flask_mail(report: Report) -> None:
    """Measure one kept connection against one for each mail."""
    with ExitStack() as stack:
        folder = stack.enter_context(own_folder())
        sink = stack.enter_context(Sink(folder))
        os.environ["SSL_CERT_FILE"] = str(sink.certificate)
        far = stack.enter_context(distance(sink.port, ROUND_TRIP))
        here = _measure(folder, sink, sink.port, 200)
        there = _measure(folder, sink, far, 40)
    report.say(f"Milliseconds a mail over STARTTLS with a login, medians of {REPEATS} runs; in brackets, how many")
    report.say("times what Flask-Mail alone delivers.\n")
    head = ["", "loopback", f"round trip of {ROUND_TRIP * 1000:g} ms"]
    report.table(head, [[name, *(_figure(name, runs) for runs in (here, there))] for name in here])
    for name in STORES:
        report.hold(f"{name}, {ROUND_TRIP * 1000:g} ms away, times Flask-Mail", _times(name, there), at_least=3)
    report.say()


ALONE, HANDING_OVER = "Flask-Mail alone, a connection for each mail", "our connection alone, kept, without an outbox"


def _times(name: str, runs: dict[str, list[float]]) -> float:
    return median(runs[ALONE]) / median(runs[name])


def _figure(name: str, runs: dict[str, list[float]]) -> str:
    return f"{median(runs[name]) * 1000:.1f} ({_times(name, runs):.1f})"


def _measure(folder: Path, sink: Sink, port: int, count: int) -> dict[str, list[float]]:
    """Let every contender deliver, in turns, and return the seconds a mail that each took."""
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for name, store in STORES.items():
            database = stack.enter_context(store(folder))
            app = stack.enter_context(application(folder, sink.settings(port) | database))
            contenders[name] = _worker(app, count)
        contenders[HANDING_OVER] = _kept_connection(app)
        contenders[ALONE] = _flask_mail_alone(app)
        runs: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(REPEATS):
            for name, deliver in contenders.items():
                runs[name].append(deliver(count) / count)
                came = {mail.message_id for mail in sink.news()}
                assert len(came) == count, f"{name}: {len(came)} of {count} mails came"
    return runs


def _worker(app: Flask, count: int) -> Contender:
    with app.app_context():
        add_users(_addresses(count), make_password(None))

    def deliver(count: int) -> float:
        with app.app_context():
            _forget_earlier_mail()
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
    """Return subject and parts of a reset mail, as the worker writes it."""
    add_requests(_addresses(1))
    row = db.session.scalars(select(OutboxMessage)).one()
    letter = emails.draft_for(row)
    assert letter
    written = emails.write(row, letter)
    db.session.delete(row)
    db.session.commit()
    return written.subject, str(written.body), str(written.html)


def _forget_earlier_mail() -> None:
    """Let everybody be mailed again at once."""
    db.session.execute(update(User).values(cooldown_started_at=None))
    db.session.execute(delete(SecurityEvent))
    db.session.commit()


def _addresses(count: int) -> list[str]:
    return [f"robin.{number}@example.com" for number in range(count)]


def compare_workers(report: Report) -> None:
    """Measure one worker process and eight, at a server that takes its time for every reply."""
    rates = {number: _rate(number) for number in (1, WORKERS)}
    report.say(f"Mails a second with {LATENCY * 1000:g} ms before every reply of the server, `flask outbox run` on")
    report.say(f"PostgreSQL, {WINDOW:g} s each.\n")
    report.table(["workers", "mails a second"], [[number, f"{rate:.2f}"] for number, rate in rates.items()])
    report.hold(f"{WORKERS} workers, times one", rates[WORKERS] / rates[1], at_least=7)
    report.say()


def _rate(number: int) -> float:
    with own_folder() as folder, Sink(folder, LATENCY) as sink, postgresql(folder) as database:
        settings = sink.settings() | database
        with application(folder, settings) as app, app.app_context():
            count = int(number * (WINDOW + 30))
            add_users(_addresses(count), make_password(None))
            add_requests(_addresses(count))
        with running(*workers(folder, number, settings | {"SSL_CERT_FILE": str(sink.certificate)})):
            return _arrivals(sink, number) / WINDOW


def _arrivals(sink: Sink, number: int) -> int:
    """Count the mails of a while that begins when every worker is at work."""
    sink.news()
    while sink.logins < number:
        time.sleep(0.1)
        sink.news()
    start = time.monotonic()
    time.sleep(WINDOW)
    return sum(start < mail.at <= start + WINDOW for mail in sink.news())


if __name__ == "__main__":
    main()
