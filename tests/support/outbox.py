"""The outbox as tests use it: requests put in, delivery run once, and a look at rows, users and events."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from flask import Flask
from sqlalchemy import event, select, update

from pwreset import outbox
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage, SecurityEvent, User
from pwreset.outbox import Outcome, Result
from pwreset.outbox.delivery import deliver_pending
from pwreset.request_info import RequestInfo
from tests.support.app import Inbox, MakeApp
from tests.support.scripted_smtp import ScriptedServer
from tests.support.smtp import SMTPServer

LOGIN = ("mailer@example.com", "abcdefghijklmnop")
SECURE = {"EMAIL_USE_TLS": "true", "EMAIL_USER": LOGIN[0], "EMAIL_PASS": LOGIN[1]}
IMPLICIT = {"EMAIL_USE_SSL": "true", "EMAIL_USER": LOGIN[0], "EMAIL_PASS": LOGIN[1]}
NOTICE = "password_changed"  # emailed to the row's own address, account or no account, and never throttled


def app_for(make_app: MakeApp, server: SMTPServer | ScriptedServer, **settings: Any) -> Flask:
    """Return an application that emails through the server; a relay without TLS and login unless `settings` differ."""
    defaults = {
        "EMAIL_HOST": "localhost",
        "EMAIL_PORT": server.port,
        "EMAIL_FROM": "accounts@example.com",
        "EMAIL_TIMEOUT": "0.5",
        "EMAIL_DEADLINE": "5",
    }
    return make_app(**{**defaults, **settings})


def request_email(app: Flask, address: str = "alice@example.com", kind: str = NOTICE, **options: Any) -> None:
    """Put a row into the outbox, as a view does."""
    with app.app_context():
        outbox.enqueue(kind, address, RequestInfo("192.0.2.1", "Firefox/140 (Windows)"), options)
        db.session.commit()


def deliver(app: Flask) -> tuple[int, str | None]:
    """Deliver what is due, once."""
    with app.app_context():
        return deliver_pending()


def settle(app: Flask, row: OutboxMessage, result: Result, **details: Any) -> Result | None:
    """Settle an outcome of a leased row, and return what was written."""
    with app.app_context():
        outcome = outbox.settle(row, Outcome(result, **details))
        return outcome and outcome.result


def merge(row: OutboxMessage, until: datetime) -> bool:
    """Settle a row whose account is in its cooldown, and return whether it was merged into an older row."""
    outcome = outbox.settle(row, Outcome(Result.MERGED, until=until))
    return outcome is not None and outcome.result is Result.MERGED


def rows(app: Flask) -> list[OutboxMessage]:
    """Return what is in the outbox, oldest first."""
    with app.app_context():
        found = list(db.session.scalars(select(OutboxMessage).order_by(OutboxMessage.id)))
        db.session.expunge_all()
        return found


def addresses_of(app: Flask) -> list[str]:
    return [row.address for row in rows(app)]


def event_kinds(app: Flask, user_id: int | None = None) -> list[str]:
    """Return the kinds of the events, in order; of one account if its id is given."""
    with app.app_context():
        query = select(SecurityEvent.kind).order_by(SecurityEvent.id)
        return list(db.session.scalars(query if user_id is None else query.where(SecurityEvent.user_id == user_id)))


def users(app: Flask) -> list[User]:
    with app.app_context():
        found = list(db.session.scalars(select(User).order_by(User.id)))
        db.session.expunge_all()
        return found


def end_waits(app: Flask) -> None:
    """Make every waiting row due now, as if its retry time or lease were over."""
    with app.app_context():
        waiting = OutboxMessage.run_after.is_not(None)
        db.session.execute(update(OutboxMessage).where(waiting).values(run_after=utcnow() - timedelta(seconds=1)))
        db.session.commit()


def assert_uncharged(app: Flask, number: int = 1) -> None:
    """Assert that all rows are due, and no attempt was charged to them."""
    found = rows(app)
    assert len(found) == number
    assert [(row.attempts, row.failure, row.failed_at) for row in found] == [(0, None, None)] * number
    assert all(row.run_after is not None and row.run_after <= utcnow() for row in found)


@contextmanager
def listening(app: Flask, hear: Callable[[str], None]):
    """Call `hear` with every SQL statement."""

    def before(_connection, _cursor, statement, _parameters, _context, _many):
        hear(statement)

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", before)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", before)


def assert_delivered(app: Flask, server: ScriptedServer, number: int = 1) -> None:
    """The server has the emails, and the outbox is empty."""
    assert len(server.received) == number
    assert rows(app) == []


def subjects(inbox: Inbox) -> list[str]:
    """Return the subjects of the emails in the mailbox, oldest first."""
    return [str(mail["Subject"]) for mail in inbox.emails()]


def deliver_in_threads(app: Flask, number: int) -> None:
    """Deliver in so many threads at once; an exception of one is raised here."""
    together = threading.Barrier(number)

    def work() -> None:
        together.wait(5)
        deliver(app)

    with ThreadPoolExecutor(number) as pool:
        for job in [pool.submit(work) for _ in range(number)]:
            job.result()
