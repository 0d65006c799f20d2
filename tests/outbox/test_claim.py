"""The claim on PostgreSQL locks one row, skips locked rows, and uses an index."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event

from pwreset import outbox
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from tests.support.clock import until
from tests.support.databases import PostgreSQL, on_postgresql
from tests.support.outbox import addresses_of, listening, merge, request_email

pytestmark = on_postgresql
OLDEST = "SELECT id FROM outbox ORDER BY id LIMIT 1 FOR UPDATE"
# 20,000 rows that are due, in order, of 5,000 addresses.
MANY = """
    INSERT INTO outbox (message_id, kind, address, email_key, options, created_at, run_after, leased, attempts)
    SELECT md5(n::text), 'register', n % 5000, n % 5000, '{}', moment, moment, false, 0
    FROM generate_series(1, 20000) n, LATERAL (SELECT now() - interval '1 hour' + n * interval '1 ms' AS moment) m
"""


def claimed(app: Flask) -> str | None:
    with app.app_context():
        row = outbox.claim()
        return row and row.address


@contextmanager
def locked(database: PostgreSQL, statement: str = OLDEST) -> Iterator[None]:
    """Hold a row locked in the transaction of another connection, which is rolled back."""
    with psycopg.connect(database.url) as other:
        other.execute(statement.encode())
        yield
        other.rollback()


def test_a_claim_passes_over_locked_rows_in_its_one_statement(app: Flask) -> None:
    request_email(app)
    heard: list[str] = []
    with listening(app, heard.append):
        assert claimed(app)
    assert len(heard) == 1
    assert "FOR UPDATE SKIP LOCKED) AND outbox.run_after <=" in heard[0]


@pytest.mark.parametrize("statement", [OLDEST, "UPDATE outbox SET run_after = NULL WHERE id = 1"])
def test_a_row_that_another_worker_is_about_to_lease_is_not_waited_for(
    app: Flask, database: PostgreSQL, statement: str
) -> None:
    for name in ("first", "second", "third"):
        request_email(app, f"{name}@example.com")
    with locked(database, statement):
        start = time.monotonic()
        assert claimed(app) == "second@example.com"
        assert time.monotonic() - start < 1
    assert [claimed(app), claimed(app), claimed(app)] == ["first@example.com", "third@example.com", None]


def test_where_all_rows_are_locked_a_claim_comes_back_with_nothing_at_once(app: Flask, database: PostgreSQL) -> None:
    request_email(app)
    with locked(database):
        start = time.monotonic()
        assert claimed(app) is None
        assert time.monotonic() - start < 1
    assert claimed(app) == "alice@example.com"


def test_a_claim_locks_no_other_row(app: Flask, database: PostgreSQL) -> None:
    for name in ("first", "second", "third"):
        request_email(app, f"{name}@example.com")
    free: list[tuple[int, ...]] = []

    def look(_connection: object) -> None:
        free.extend(database.query("SELECT id FROM outbox ORDER BY id FOR UPDATE SKIP LOCKED"))

    with app.app_context():
        engine = db.engine
        event.listen(engine, "commit", look)
        outbox.claim()
        event.remove(engine, "commit", look)
    assert free == [(2,), (3,)]


def test_two_that_merge_and_claim_the_same_rows_do_not_wait_for_each_other(app: Flask, database: PostgreSQL) -> None:
    for _ in range(2):
        request_email(app)
    with locked(database, "UPDATE outbox SET created_at = created_at WHERE id = 1"):  # as a merge does
        start = time.monotonic()
        with app.app_context():
            row = outbox.claim()
            assert row is not None
            assert row.id == 2
        assert time.monotonic() - start < 1
    assert len(addresses_of(app)) == 2


def plan_of(database: PostgreSQL, app: Flask, act: str) -> str:
    """Let the outbox do something, and return how PostgreSQL does the first of its statements."""
    told: list[tuple[str, dict[str, object]]] = []

    def before(_connection, _cursor, statement, parameters, _context, _many):
        told.append((statement, parameters))

    with app.app_context():
        row = db.session.get(OutboxMessage, 19_999)
        db.session.expunge(row)
        engine = db.engine
        event.listen(engine, "before_cursor_execute", before)
        assert outbox.claim() if act == "claim" else merge(row, utcnow())
        event.remove(engine, "before_cursor_execute", before)
    with psycopg.connect(database.url) as connection:
        lines = connection.execute(f"EXPLAIN (COSTS OFF) {told[0][0]}".encode(), told[0][1]).fetchall()
        connection.rollback()
    return "\n".join(line for (line,) in lines)


@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize(("act", "index"), [("claim", "ix_outbox_run_after_id"), ("merge", "ix_outbox_email_key_id")])
def test_a_full_outbox_is_read_through_an_index_and_the_row_is_chosen_once(
    app: Flask, database: PostgreSQL, act: str, index: str, analyzed: bool
) -> None:
    # The row is chosen in an InitPlan: a SubPlan could be run again for each row, and lock another each time.
    database.query(MANY)
    if analyzed:
        database.query("ANALYZE outbox")
    plan = plan_of(database, app, act)
    assert "InitPlan 1" in plan
    assert "SubPlan" not in plan
    assert "Seq Scan" not in plan
    assert index in plan
    assert "pk_outbox" in plan
    assert ("Sort" in plan) <= (act == "merge")  # of the few rows of one address it may sort


def test_a_row_does_not_merge_into_one_that_is_leased_at_this_very_moment(app: Flask, database: PostgreSQL) -> None:
    for _ in range(2):
        request_email(app)
    with app.app_context():
        younger = db.session.get(OutboxMessage, 2)
        db.session.expunge(younger)
    with psycopg.connect(database.url) as another, ThreadPoolExecutor(1) as pool:
        another.execute("UPDATE outbox SET leased = true WHERE id = 1")
        merging = pool.submit(merged, app, younger)
        until(lambda: database.query("SELECT 1 FROM pg_locks WHERE NOT granted"), "the merge to wait")
        another.commit()
        assert not merging.result()
    assert len(addresses_of(app)) == 2


def merged(app: Flask, row: OutboxMessage) -> bool:
    with app.app_context():
        done = merge(row, utcnow())
        db.session.rollback()
        return done
