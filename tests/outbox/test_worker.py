"""The delivery thread continues after errors, logs little, and ends on request."""

import atexit
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select, text, update

from pwreset import accounts, outbox
from pwreset.accounts.events import Kind, record
from pwreset.extensions import db
from pwreset.models import SecurityEvent, User
from pwreset.outbox import Outcome, Result
from pwreset.outbox.worker import Worker
from tests.support.app import Inbox, MakeApp, add_user
from tests.support.clock import NOON, waited_for
from tests.support.outbox import addresses_of, app_for, assert_uncharged, event_kinds, request_email, rows, users
from tests.support.passwords import PASSWORD
from tests.support.smtp import SMTPServer, in_turn


@contextmanager
def running(app: Flask) -> Iterator[Worker]:
    """Let a worker run in a thread, and end it."""
    worker = Worker(app)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
        atexit.unregister(worker.stop)


@contextmanager
def without_outbox(app: Flask) -> Iterator[None]:
    """Take the table away for a while: a database that fails."""
    execute(app, "ALTER TABLE outbox RENAME TO away")
    yield
    execute(app, "ALTER TABLE away RENAME TO outbox")


def execute(app: Flask, statement: str) -> None:
    with app.app_context():
        db.session.execute(text(statement))
        db.session.commit()


def emptied(app: Flask, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while rows(app) and time.monotonic() < end:
        time.sleep(0.02)
    return rows(app) == []


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock that stands still until its one value is changed."""
    now = [1000.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr("pwreset.clock.time", Clock)
    return now


def test_a_worker_delivers_what_was_there_and_what_comes_later(make_app: MakeApp) -> None:
    app = make_app(OUTBOX_POLL_SECONDS=0.05)
    request_email(app, "before@example.com")
    with running(app):
        assert emptied(app)
        request_email(app, "later@example.com")
        assert emptied(app)
    assert {mail["To"] for mail in Inbox(app).emails()} == {"before@example.com", "later@example.com"}


def test_an_idle_worker_ends_within_a_second(make_app: MakeApp) -> None:
    with running(make_app(OUTBOX_POLL_SECONDS=60)) as worker:
        time.sleep(0.1)
        start = time.monotonic()
        worker.stop()
        assert time.monotonic() - start < 1
        assert "outbox" not in {thread.name for thread in threading.enumerate()}


def test_a_stopping_worker_sends_the_email_in_progress_and_no_other(make_app: MakeApp) -> None:
    reached = threading.Event()
    with SMTPServer(latency=0.1) as server:
        app = app_for(make_app, server)
        server.rcpt_reply = reached.set  # returns None: the usual answer
        request_email(app, "first@example.com")
        request_email(app, "second@example.com")
        with running(app) as worker:
            assert reached.wait(5)
            worker.stop()
        assert [record.rcpt_tos for record in server.messages] == [["first@example.com"]]
    assert addresses_of(app) == ["second@example.com"]
    assert_uncharged(app)


def test_a_worker_waits_for_the_setting_between_two_looks(make_app: MakeApp) -> None:
    assert Worker(make_app(OUTBOX_POLL_SECONDS=7))._pass() == 7


def test_a_database_error_ends_no_worker(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    request_email(app)
    worker = Worker(app)
    with without_outbox(app):
        assert worker._pass() == 2
    assert worker._pass() == 1
    assert rows(app) == []
    assert "all emails wait: the database does not answer (" in caplog.text
    assert "an error in the program" not in caplog.text
    assert "alice" not in caplog.text


def test_a_running_worker_outlives_a_database_error(make_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(OUTBOX_POLL_SECONDS=0.05)
    with without_outbox(app), running(app):
        assert waited_for(lambda: "the database does not answer (" in caplog.text)
        execute(app, "ALTER TABLE away RENAME TO outbox")
        request_email(app)
        assert emptied(app)
        execute(app, "ALTER TABLE outbox RENAME TO away")


def test_a_failing_server_is_left_alone_longer_and_longer_up_to_30_s(make_app: MakeApp) -> None:
    with SMTPServer(mail_reply=in_turn(*["421 4.3.2 Closing"] * 6)) as server:
        app = app_for(make_app, server)
        request_email(app)
        worker = Worker(app)
        assert [worker._pass() for _ in range(6)] == [2, 4, 8, 16, 30, 30]
        assert_uncharged(app)
        assert worker._pass() == 1
        assert len(server.messages) == 1
        request_email(app)
        server.mail_reply = "421 4.3.2 Closing"
        assert worker._pass() == 2


def test_a_database_that_is_away_for_a_day_ends_no_worker(app: Flask) -> None:
    worker = Worker(app)
    with without_outbox(app):
        pauses = [worker._pass() for _ in range(1100)]  # nine hours: 2.0 ** 1024 is no number
    assert set(pauses[4:]) == {30}
    assert worker._pass() == 1


def test_a_failing_server_is_warned_of_once_a_minute(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, monotonic: list[float]
) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server)
    request_email(app)
    worker = Worker(app)
    for seconds in (0, 30, 59.9):
        monotonic[0] = 1000 + seconds
        worker._pass()
    assert warnings(caplog) == 1
    monotonic[0] = 1060
    worker._pass()
    assert warnings(caplog) == 2
    assert "No email is sent, and all emails wait: the mail server refused the connection" in caplog.text


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.name == "pwreset.outbox.worker" and record.levelname == "WARNING" for record in caplog.records)


# What is deleted when


def test_an_account_never_finished_is_purged_after_a_week(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        add_user(app, "unfinished@example.com", None, registered=True)
        add_user(app, "finished@example.com", PASSWORD)
        off = add_user(app, "deactivated@example.com", None, registered=True)
        with app.app_context():
            db.session.execute(update(User).where(User.id == off).values(is_active=False))
            record(Kind.REGISTERED, 1)
            db.session.commit()
        clock.shift(timedelta(days=7))
        add_user(app, "young@example.com", None, registered=True)
        Worker(app)._pass()
        assert len(users(app)) == 4
        clock.shift(1)
        Worker(app)._pass()
        kept = [user.email for user in users(app)]
    assert kept == ["finished@example.com", "deactivated@example.com", "young@example.com"]
    assert event_kinds(app) == []


def test_an_address_purged_may_register_again_under_another_id(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        first = add_user(app, "alice@example.com", None, registered=True)
        clock.shift(timedelta(days=8))
        Worker(app)._pass()
        second = add_user(app, "alice@example.com", None, registered=True)
    assert second > first


def test_failed_email_is_purged_after_30_days(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        with app.app_context():
            row = outbox.claim()
            assert row is not None
            outbox.settle(row, Outcome(Result.FAILED, reason="refused"))
        clock.shift(timedelta(days=30))
        Worker(app)._pass()
        assert len(rows(app)) == 1
        clock.shift(1)
        Worker(app)._pass()
    assert rows(app) == []


def test_events_are_purged_after_90_days(app: Flask, alice: int) -> None:
    with time_machine.travel(NOON, tick=False) as clock, app.app_context():
        record(Kind.LOGGED_IN, alice)
        db.session.commit()
        clock.shift(timedelta(days=90))
        record(Kind.CHANGED, alice)
        db.session.commit()
        Worker(app)._pass()
        assert event_kinds(app) == ["logged_in", "changed"]
        clock.shift(1)
        Worker(app)._pass()
        assert list(db.session.scalars(select(SecurityEvent.kind))) == ["changed"]


def test_the_purge_comes_once_an_hour(app: Flask, monotonic: list[float]) -> None:
    worker = Worker(app)
    worker._pass()
    with app.app_context():
        accounts.create("old@example.com", registered=True)
        db.session.execute(update(User).values(registered_at=datetime(2020, 1, 1, tzinfo=UTC)))
        db.session.commit()
    monotonic[0] += 3599
    worker._pass()
    assert len(users(app)) == 1
    monotonic[0] += 1
    worker._pass()
    assert users(app) == []


def test_rows_waiting_are_never_purged(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        with app.app_context():
            row = outbox.claim()
            assert row is not None
            outbox.settle(row, Outcome(Result.DEFERRED, until=NOON + timedelta(days=365, minutes=30)))
        clock.shift(timedelta(days=365))
        Worker(app)._pass()
    assert len(rows(app)) == 1
