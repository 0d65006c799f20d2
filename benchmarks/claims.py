"""What a claim costs, and that it doesn't depend on the number of rows: `python -m benchmarks.claims`.

It compares outboxes with 100 rows due, with 100,000 due, and with 100,000 of which only 100 are due; then it drains one
of 20,000 rows, and measures one from which 100,000 were just deleted. The compared outboxes are measured alternately.
Commits don't wait for the disk here: that part is the same for every claim and would hide the differences.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from flask import Flask
from sqlalchemy import delete, event, text, update

from benchmarks.report import Report, clean_up_on_sigterm, evidence
from benchmarks.stores import STORES, Store, add_requests, application, temporary_folder
from pwreset import outbox
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from pwreset.outbox import Outcome, Result

FEW = 100
MANY = 100_000
DRAINED = 20_000
ROUNDS = 10
AT_A_TIME = 50
EXPLAIN = {"PostgreSQL": "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF)", "SQLite": "EXPLAIN QUERY PLAN"}
ASYNCHRONOUS = {"PostgreSQL": "SET synchronous_commit = off", "SQLite": "PRAGMA synchronous = OFF"}
# Rows that are due, and rows that are due later.
OUTBOXES = {"100 due": (FEW, 0), "100,000 due": (MANY, 0), "100 due, 99,900 later": (FEW, MANY - FEW)}


def main() -> None:
    """Measure, and check the bounds."""
    clean_up_on_sigterm()
    report = evidence("claims", "Claims", "bench")
    compare_outboxes(report)
    show_plans(report)
    follow_a_drain(report)
    follow_a_purge(report)
    report.end()


def compare_outboxes(report: Report) -> None:
    """Measure claims of every outbox, on both engines."""
    figures = {engine: _compare(engine, store) for engine, store in STORES.items()}
    report.write(f"Milliseconds of `outbox.claim()`, medians of {ROUNDS * AT_A_TIME}.\n")
    rows = [[name, *(f"{figures[engine][name] * 1000:.2f}" for engine in STORES)] for name in OUTBOXES]
    report.table(["waiting", *STORES], rows)
    for engine, medians in figures.items():
        fewest, *more = medians.values()
        report.check(f"{engine}: the slowest outbox, times the one of {FEW}", max(more) / fewest, below=1.5)
    report.write()


def _compare(engine: str, store: Store) -> dict[str, float]:
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        apps = {}
        for name, (due, later) in OUTBOXES.items():
            apps[name] = stack.enter_context(_outbox(engine, store, folder, due, later))
        seconds: dict[str, list[float]] = {name: [] for name in apps}
        for _ in range(ROUNDS):
            for name, app in apps.items():
                seconds[name] += _claims(app, AT_A_TIME)
    return {name: median(taken) for name, taken in seconds.items()}


def _claims(app: Flask, number: int) -> list[float]:
    """Time so many claims, and make the leased rows due again."""
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
        with temporary_folder() as folder, _outbox(engine, store, folder, MANY, 0) as app, app.app_context():
            statements = _statements_of(outbox.claim)
            statement, parameters = statements[0]
            plan = db.session.connection().exec_driver_sql(f"{EXPLAIN[engine]} {statement}", parameters)
            lines = [str(row[-1]) for row in plan]
            db.session.rollback()
        report.write(f"{engine}, {MANY:,} due: a claim is {len(statements)} statement, and its plan is\n")
        report.write("\n".join(["```", *lines, "```", ""]))
        report.check(f"{engine}: statements of a claim", len(statements), below=2)
        by_index = sum("ix_outbox_run_after_id" in line for line in lines)
        report.check(f"{engine}: lines of the plan that name the index", by_index, at_least=1)
        report.write()


def follow_a_drain(report: Report) -> None:
    """Measure the first and the last claims of an outbox that is emptied as a worker empties it."""
    rows = []
    for engine, store in STORES.items():
        with temporary_folder() as folder, _outbox(engine, store, folder, DRAINED, 0) as app, app.app_context():
            taken = []
            for _ in range(DRAINED):
                start = time.perf_counter()
                row = outbox.claim()
                taken.append(time.perf_counter() - start)
                assert row is not None
                outbox.settle(row, Outcome(Result.NO_RECIPIENT))
            rows.append([engine, *(f"{median(part) * 1000:.2f}" for part in (taken[:1000], taken[-1000:]))])
    report.write(
        f"Milliseconds of a claim while {DRAINED:,} rows are claimed and deleted one by one, medians of 1,000.\n"
    )
    report.table(["", "first", "last"], rows)


def follow_a_purge(report: Report) -> None:
    """Measure claims right after many rows were deleted, whose dead entries still come first in the index."""
    rows = []
    for engine, store in STORES.items():
        with temporary_folder() as folder, _outbox(engine, store, folder, MANY, 0) as app:
            _delete_all(app)
            rows.append([engine, *_first_and_rest(app)])
            if engine == "PostgreSQL":
                with app.app_context():
                    _refill(MANY, 0)
                with _old_snapshot(app):
                    _delete_all(app)
                    rows.append([f"{engine}, while a backup runs", *_first_and_rest(app)])
    report.write(f"Milliseconds of a claim after {MANY:,} rows were deleted at once and {FEW} added.\n")
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
    """Keep a transaction open that can still see deleted rows, as pg_dump does."""
    with app.app_context(), db.engine.connect() as connection:
        connection.execution_options(isolation_level="REPEATABLE READ")
        connection.execute(text("SELECT count(*) FROM outbox"))
        yield


@contextmanager
def _outbox(engine: str, store: Store, folder: Path, due: int, later: int) -> Iterator[Flask]:
    """Create an application with so many rows in its outbox."""
    with store(folder) as database, application(folder, database) as app:
        with app.app_context():
            event.listen(db.engine, "connect", lambda connection, _: _commit_asynchronously(engine, connection))
            db.engine.dispose()
            _refill(due, later)
        yield app


def _commit_asynchronously(engine: str, connection: Any) -> None:
    connection.execute(ASYNCHRONOUS[engine])
    connection.commit()


def _refill(due: int, later: int) -> None:
    now = utcnow()
    add_requests((f"due.{number}@example.com" for number in range(due)), now)
    add_requests((f"later.{number}@example.com" for number in range(later)), now + timedelta(hours=1))


def _statements_of(action: Callable[[], object]) -> list[tuple[str, Any]]:
    """Return every statement that an action sends to the database."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(db.engine, "before_cursor_execute", note)
    action()
    event.remove(db.engine, "before_cursor_execute", note)
    return statements


if __name__ == "__main__":
    main()
