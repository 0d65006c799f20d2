"""What becomes of a row: sent, merged, deferred, expired or failed, and never lost."""

import time
from datetime import timedelta

import pytest
import time_machine
from flask import Flask
from jinja2 import ChoiceLoader, DictLoader
from sqlalchemy import event, update
from sqlalchemy.exc import OperationalError

from pwreset import accounts
from pwreset.accounts import events
from pwreset.accounts.events import Kind
from pwreset.extensions import db
from pwreset.models import SecurityEvent, User
from pwreset.outbox import delivery
from pwreset.outbox.delivery import deliver_pending
from tests.support.app import Inbox, MakeApp, add_user
from tests.support.databases import Database
from tests.support.outbox import (
    NOTICE,
    addresses_of,
    app_for,
    deliver,
    deliver_in_threads,
    end_waits,
    event_kinds,
    request_email,
    rows,
    subjects,
    users,
)
from tests.support.passwords import PASSWORD
from tests.support.smtp import SMTPServer

RESET = "password_reset"


def switch_off(app: Flask, user_id: int) -> None:
    with app.app_context():
        user = accounts.find_by_id(user_id)
        assert user is not None
        accounts.set_active(user, active=False)
        db.session.commit()


# Who is emailed


def test_an_address_without_an_account_opens_no_connection_and_leaves_no_row(make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server)
        request_email(app, "nobody@example.com", RESET)
        assert deliver(app) == (1, None)
        assert server.connections == 0
    assert rows(app) == []


@pytest.mark.parametrize("kind", [RESET, "register"])
def test_a_deactivated_account_opens_no_connection_and_leaves_no_row(kind: str, make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server)
        switch_off(app, add_user(app, "alice@example.com", PASSWORD))
        request_email(app, "alice@example.com", kind)
        assert deliver(app) == (1, None)
        assert server.connections == 0
    assert rows(app) == []


def test_a_registration_of_a_new_address_makes_an_account_without_a_password(app: Flask, inbox: Inbox) -> None:
    request_email(app, "new@example.com", "register")
    mail = inbox.deliver_one()
    [user] = users(app)
    assert (user.email, user.has_usable_password(), user.is_active) == ("new@example.com", False, True)
    assert mail["Subject"] == "Finish your registration at localhost"
    assert mail["To"] == "new@example.com"


def test_a_registration_of_a_known_address_says_so_and_changes_nothing(app: Flask, inbox: Inbox, alice: int) -> None:
    before = users(app)[0]
    request_email(app, "alice@example.com", "register")
    mail = inbox.deliver_one()
    [after] = users(app)
    assert mail["Subject"] == "You already have an account at localhost"
    assert (after.password_hash, after.security_stamp) == (before.password_hash, before.security_stamp)


def test_a_registration_of_an_unfinished_account_is_invited_again(app: Flask, inbox: Inbox) -> None:
    add_user(app, "alice@example.com", None)
    request_email(app, "alice@example.com", "register")
    assert inbox.deliver_one()["Subject"] == "Finish your registration at localhost"
    assert len(users(app)) == 1


def test_two_registrations_in_a_row_make_one_account_and_one_email(app: Flask, inbox: Inbox) -> None:
    request_email(app, "new@example.com", "register")
    request_email(app, "NEW@example.com", "register")
    deliver(app)
    assert [user.email for user in users(app)] == ["new@example.com"]
    assert subjects(inbox) == ["Finish your registration at localhost"]


def test_two_workers_make_one_account_of_two_registrations(app: Flask, inbox: Inbox) -> None:
    request_email(app, "new@example.com", "register")
    request_email(app, "new@example.com", "register")
    deliver_in_threads(app, 2)
    assert len(users(app)) == 1
    assert len(inbox.emails()) == 1


# What becomes of the rest


@pytest.mark.parametrize("kind", [RESET, "register"])
def test_a_request_older_than_a_day_is_counted_and_not_emailed(
    kind: str, app: Flask, inbox: Inbox, alice: int, clock: time_machine.Traveller
) -> None:
    request_email(app, kind=kind)
    clock.shift(timedelta(hours=24, seconds=1))
    assert deliver(app) == (1, None)
    assert inbox.emails() == []
    assert rows(app) == []
    assert event_kinds(app) == ["expired"]


def test_a_request_of_just_under_a_day_is_emailed(
    app: Flask, inbox: Inbox, alice: int, clock: time_machine.Traveller
) -> None:
    request_email(app, kind=RESET)
    clock.shift(timedelta(hours=23, minutes=59))
    deliver(app)
    assert len(inbox.emails()) == 1


def test_a_notice_lives_for_a_week(app: Flask, inbox: Inbox, clock: time_machine.Traveller) -> None:
    request_email(app, "alice@example.com", NOTICE)
    clock.shift(timedelta(days=6))
    request_email(app, "bob@example.com", NOTICE)
    clock.shift(timedelta(days=1, seconds=1))
    deliver(app)
    assert [mail["To"] for mail in inbox.emails()] == ["bob@example.com"]
    assert event_kinds(app) == ["expired"]


@pytest.mark.parametrize("template", ["{{ nothing.there }}", "{{ 1 // 0 }}", "{% include 'nowhere' %}"])
def test_an_email_that_cannot_be_rendered_fails_and_the_others_are_sent(
    template: str, app: Flask, inbox: Inbox, alice: int, caplog: pytest.LogCaptureFixture
) -> None:
    loaders = [DictLoader({"own.txt": template}), app.jinja_env.loader]
    app.jinja_env.loader = ChoiceLoader(loaders)  # type: ignore[arg-type]
    request_email(app, kind=RESET, email_template_name="own.txt")
    request_email(app, "bob@example.com")
    assert deliver(app) == (2, None)
    assert [mail["To"] for mail in inbox.emails()] == ["bob@example.com"]
    [row] = rows(app)
    assert row.failed_at is not None
    assert str(row.failure).startswith("the email could not be written (")
    assert event_kinds(app) == ["refused"]
    assert "alice" not in caplog.text


def test_a_template_that_is_missing_names_the_row_and_not_the_address(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    request_email(app, email_template_name="no/such.txt")
    deliver(app)
    assert "Email 1 (password_changed) not delivered: the email could not be written (TemplateNotFound)" in caplog.text
    assert "alice" not in caplog.text


@pytest.mark.parametrize("word", ["users", "security_events", "DELETE FROM outbox"])
def test_a_database_error_in_the_middle_leaves_the_row(
    word: str, app: Flask, inbox: Inbox, alice: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "LONGEST_OUTAGE", 0)
    request_email(app, kind=RESET)

    def fail(_connection, _cursor, statement, _parameters, _context, _many):
        if word in statement:
            raise OperationalError(statement, {}, Exception("disk I/O error"))

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", fail)
    with pytest.raises(OperationalError):
        deliver(app)
    event.remove(engine, "before_cursor_execute", fail)
    [row] = rows(app)
    assert (row.attempts, row.failed_at) == (0, None)
    end_waits(app)
    with app.app_context():
        db.session.execute(update(User).values(cooldown_started_at=None))
        db.session.commit()
    deliver(app)
    assert rows(app) == []
    assert len(inbox.emails()) == 1  # a second copy takes the first one's place: same Message-ID


def test_a_row_of_a_kind_that_only_a_newer_version_knows_waits_for_it(app: Flask, inbox: Inbox) -> None:
    request_email(app, kind="newsletter")
    request_email(app, "bob@example.com")
    assert deliver(app) == (2, None)
    assert [mail["To"] for mail in inbox.emails()] == ["bob@example.com"]
    [row] = rows(app)
    assert (row.kind, row.attempts, row.failed_at) == ("newsletter", 1, None)


@pytest.mark.parametrize("sender", ["x@example.com\r\nBcc: y@example.com", "x\n@example.com", "jürgen@example.com"])
def test_a_sender_that_can_t_go_on_the_wire_is_its_rows_failure(sender: str, make_app: MakeApp) -> None:
    with SMTPServer() as server:
        app = app_for(make_app, server)
        request_email(app, from_email=sender)
        request_email(app, "bob@example.com")
        assert deliver(app) == (2, None)
        assert [record.rcpt_tos for record in server.messages] == [["bob@example.com"]]
    [row] = rows(app)
    assert row.failed_at is not None


@pytest.mark.parametrize("times", [1, 6])
def test_a_database_that_is_away_for_a_while_after_the_email_went_out_brings_no_second_copy(
    app: Flask, inbox: Inbox, alice: int, times: int
) -> None:
    request_email(app, kind=RESET)
    failures = iter([True] * times + [False])

    def fail(_connection, _cursor, statement, _parameters, _context, _many):
        if "DELETE FROM outbox" in statement and next(failures):
            raise OperationalError(statement, {}, Exception("database is locked"))

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", fail)
    assert deliver(app) == (1, None)
    event.remove(engine, "before_cursor_execute", fail)
    assert rows(app) == []
    assert event_kinds(app) == ["requested", "mailed"]


def test_what_was_asked_is_recorded_with_who_asked(app: Flask, alice: int) -> None:
    from pwreset.accounts.events import latest

    request_email(app, kind=RESET)
    deliver(app)
    with app.app_context():
        user = accounts.find_by_id(alice)
        assert user is not None
        mailed, requested = latest(user)
    assert (requested.description, requested.client_address) == ("Password reset asked for", "192.0.2.1")
    assert requested.browser == "Firefox on Windows"
    assert (mailed.description, mailed.client_address, mailed.browser) == ("Mail sent", None, None)


def test_a_registration_is_recorded_as_one(app: Flask) -> None:
    request_email(app, "new@example.com", "register")
    deliver(app)
    assert event_kinds(app, users(app)[0].id) == ["registered", "mailed"]


def test_nothing_is_recorded_for_an_address_without_an_account(app: Flask) -> None:
    request_email(app, "nobody@example.com", RESET)
    deliver(app)
    assert event_kinds(app) == []


def test_delivery_stops_between_two_emails_on_request(app: Flask) -> None:
    for number in range(5):
        request_email(app, f"user{number}@example.com")
    answers = iter([False, False, True])
    with app.app_context():
        assert deliver_pending(lambda: next(answers)) == (2, None)
    assert addresses_of(app) == ["user2@example.com", "user3@example.com", "user4@example.com"]


def test_no_transaction_is_open_while_the_server_is_spoken_to(make_app: MakeApp) -> None:
    held: list[str] = []
    with SMTPServer() as server:
        app = app_for(make_app, server)
        add_user(app, "alice@example.com", PASSWORD)

        def write_meanwhile() -> None:
            with app.app_context():
                db.session.execute(update(User).values(last_login=None))
                db.session.commit()
                held.append("free")

        server.rcpt_reply = write_meanwhile  # SQLite has one writer: it would wait for an open transaction
        request_email(app, kind=RESET)
        assert deliver(app) == (1, None)
        assert len(server.messages) == 1
    assert held == ["free"]
    assert rows(app) == []


class Writer:
    """A name of the site that writes into the database, over a connection of its own, whenever it is read."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def __str__(self) -> str:
        self.database.query("UPDATE outbox SET language = 'en'")
        return "example.com"


def test_others_can_write_while_an_email_is_being_written(app: Flask, alice: int, database: Database, inbox) -> None:
    app.jinja_env.globals["site_name"] = Writer(database)
    request_email(app, kind=RESET)
    began = time.monotonic()
    assert deliver(app) == (1, None)
    assert time.monotonic() - began < 4  # a lock is waited for 5 s
    assert len(inbox.emails()) == 1


def test_what_merged_is_recorded_with_who_asked(app: Flask, alice: int) -> None:
    for _ in range(3):
        request_email(app, kind=RESET)
    deliver(app)
    with app.app_context():
        user = accounts.find_by_id(alice)
        assert user is not None
        merged = events.latest(user)[0]
        assert db.session.query(SecurityEvent).filter_by(kind=Kind.MERGED).one().user_agent == "Firefox/140 (Windows)"
    assert (merged.client_address, merged.browser) == ("192.0.2.1", "Firefox on Windows")
