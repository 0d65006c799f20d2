"""What a claim costs, however much waits: `python -m benchmarks.claims`.

Decides which outboxes are compared: 100 rows due, 100,000 due, and 100,000 of which all but 100 wait for later; then
one that is drained of 20,000 rows, and one that 100,000 were just deleted from. Claims of the compared take turns.
Commits do not wait for the disk here: that part is the same for every claim, and would hide what differs.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from flask import Flask
from sqlalchemy import delete, event, text, update

from benchmarks.report import Report, tidy_up_on_sigterm
from benchmarks.stores import STORES, Store, add_requests, application, own_folder
from pwreset import outbox
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from pwreset.monitoring.counters import Counted

FEW, MANY, DRAINED = 100, 100_000, 20_000
ROUNDS, AT_A_TIME = 10, 50
EXPLAIN = {"PostgreSQL": "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF)", "SQLite": "EXPLAIN QUERY PLAN"}
NO_WAITING_FOR_THE_DISK = {"PostgreSQL": "SET synchronous_commit = off", "SQLite": "PRAGMA synchronous = OFF"}
# Rows due, and rows that wait for a later time.
OUTBOXES = {"100 due": (FEW, 0), "100,000 due": (MANY, 0), "100 due, 99,900 later": (FEW, MANY - FEW)}


def main() -> None:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the figures into docs/performance.md")
    record = parser.parse_args().record
    tidy_up_on_sigterm()
    report = Report("benchmarks.claims")
    compare_outboxes(report)
    show_plans(report)
    follow_a_drain(report)
    follow_a_purge(report)
    report.end(record=record)


def compare_outboxes(report: Report) -> None:
    """Measure claims of every outbox, on both engines."""
    figures = {engine: _compare(engine, store) for engine, store in STORES.items()}
    report.say(f"Milliseconds of `outbox.claim()`, medians of {ROUNDS * AT_A_TIME}.\n")
    rows = [[name, *(f"{figures[engine][name] * 1000:.2f}" for engine in STORES)] for name in OUTBOXES]
    report.table(["waiting", *STORES], rows)
    for engine, medians in figures.items():
        fewest, *more = medians.values()
        report.hold(f"{engine}: the slowest outbox, times the one of {FEW}", max(more) / fewest, below=1.5)
    report.say()


def _compare(engine: str, store: Store) -> dict[str, float]:
    with ExitStack() as stack:
        folder = stack.enter_context(own_folder())
        apps = {}
        for name, (due, later) in OUTBOXES.items():
            apps[name] = stack.enter_context(_outbox(engine, store, folder, due, later))
        seconds: dict[str, list[float]] = {name: [] for name in apps}
        for _ in range(ROUNDS):
            for name, app in apps.items():
                seconds[name] += _claims(app, AT_A_TIME)
    return {name: median(taken) for name, taken in seconds.items()}


def _claims(app: Flask, number: int) -> list[float]:
    """Time so many claims, and make what they leased due again."""
    taken = []
    with app.app_context():
        for _ in range(number):
            start = time.perf_counter()
            row = outbox.claim()
            taken.append(time.perf_counter() - start)
            assert row is not None
        db.session.execute(update(OutboxMessage).where(OutboxMessage.leased).values(run_after=utcnow(), leased=False))
        db.session.commit()
    return taken


def show_plans(report: Report) -> None:
    """Print the statement's plan on both engines, with 100,000 rows due."""
    for engine, store in STORES.items():
        with own_folder() as folder, _outbox(engine, store, folder, MANY, 0) as app, app.app_context():
            statements = _statements_of(outbox.claim)
            statement, parameters = statements[0]
            plan = db.session.connection().exec_driver_sql(f"{EXPLAIN[engine]} {statement}", parameters)
            lines = [str(row[-1]) for row in plan]
            db.session.rollback()
        report.say(f"{engine}, {MANY:,} due: a claim is {len(statements)} statement, and its plan is\n")
        report.say("\n".join(["```", *lines, "```", ""]))
        report.hold(f"{engine}: statements of a claim", len(statements), below=2)
        by_index = sum("ix_outbox_run_after_id" in line for line in lines)
        report.hold(f"{engine}: lines of the plan that name the index", by_index, at_least=1)
        report.say()


def follow_a_drain(report: Report) -> None:
    """Measure the first and the last claims of an outbox that is emptied as a worker does it."""
    rows = []
    for engine, store in STORES.items():
        with own_folder() as folder, _outbox(engine, store, folder, DRAINED, 0) as app, app.app_context():
            taken = []
            for _ in range(DRAINED):
                start = time.perf_counter()
                row = outbox.claim()
                taken.append(time.perf_counter() - start)
                assert row is not None
                outbox.discard(row, Counted.DELIVERED)
            rows.append([engine, *(f"{median(part) * 1000:.2f}" for part in (taken[:1000], taken[-1000:]))])
    report.say(
        f"Milliseconds of a claim while {DRAINED:,} rows are claimed and deleted one by one, medians of 1,000.\n"
    )
    report.table(["", "first", "last"], rows)


def follow_a_purge(report: Report) -> None:
    """Measure claims right after a mass of rows was deleted, whose dead entries still stand first in the index."""
    rows = []
    for engine, store in STORES.items():
        with own_folder() as folder, _outbox(engine, store, folder, MANY, 0) as app:
            _delete_all(app)
            rows.append([engine, *_first_and_rest(app)])
            if engine == "PostgreSQL":
                with app.app_context():
                    _refill(MANY, 0)
                with _old_snapshot(app):
                    _delete_all(app)
                    rows.append([f"{engine}, while a backup runs", *_first_and_rest(app)])
    report.say(f"Milliseconds of a claim after {MANY:,} rows were deleted at once and {FEW} added.\n")
    report.table(["", "first", f"median of {AT_A_TIME}"], rows)


def _first_and_rest(app: Flask) -> list[str]:
    taken = _claims(app, AT_A_TIME)
    return [f"{taken[0] * 1000:.2f}", f"{median(taken) * 1000:.2f}"]


def _delete_all(app: Flask) -> None:
    with app.app_context():
        db.session.execute(delete(OutboxMessage))
        db.session.commit()
        _refill(FEW, 0)


@contextmanager
def _old_snapshot(app: Flask) -> Iterator[None]:
    """Keep a transaction open that may still look at what is deleted, as pg_dump does."""
    with app.app_context(), db.engine.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        connection.execute(text("SELECT count(*) FROM outbox"))
        yield


@contextmanager
def _outbox(engine: str, store: Store, folder: Path, due: int, later: int) -> Iterator[Flask]:
    """Make an application whose outbox holds so many rows."""
    with store(folder) as database, application(folder, database) as app:
        with app.app_context():
            event.listen(db.engine, "connect", lambda connection, _: _hurry(engine, connection))
            db.engine.dispose()
            _refill(due, later)
        yield app


def _hurry(engine: str, connection: Any) -> None:
    connection.execute(NO_WAITING_FOR_THE_DISK[engine])
    connection.commit()


def _refill(due: int, later: int) -> None:
    now = utcnow()
    add_requests((f"due.{number}@example.com" for number in range(due)), now)
    add_requests((f"later.{number}@example.com" for number in range(later)), now + timedelta(hours=1))


def _statements_of(action: Callable[[], object]) -> list[tuple[str, Any]]:
    """Return every statement that something sends to the database."""
    heard: list[tuple[str, Any]] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        heard.append((statement, parameters))

    event.listen(db.engine, "before_cursor_execute", hear)
    action()
    event.remove(db.engine, "before_cursor_execute", hear)
    return heard


if __name__ == "__main__":
    main()
