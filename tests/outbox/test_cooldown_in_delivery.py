"""How often one account is emailed, and which requests wait, merge or are not limited."""

from datetime import timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import update

from pwreset import accounts
from pwreset.accounts import events
from pwreset.accounts.events import Kind
from pwreset.extensions import db
from pwreset.models import User
from pwreset.outbox import EmailKind, cooldown
from tests.support.app import Inbox, MakeApp, add_user
from tests.support.clock import NOON
from tests.support.outbox import (
    NOTICE,
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
from tests.support.smtp import SMTPServer, in_turn

RESET = "password_reset"


def ask_every(pause: timedelta, times: int, app: Flask, clock: time_machine.Traveller, kind: str = RESET) -> None:
    """Ask and deliver so many times."""
    for _ in range(times):
        request_email(app, kind=kind)
        deliver(app)
        clock.shift(pause)


def test_an_account_is_emailed_once_a_minute(
    app: Flask, inbox: Inbox, alice: int, clock: time_machine.Traveller
) -> None:
    request_email(app, kind=RESET)
    deliver(app)
    clock.shift(20)
    request_email(app, kind=RESET)
    deliver(app)
    assert len(inbox.emails()) == 1
    assert rows(app)[0].run_after == NOON + timedelta(minutes=1)
    clock.move_to(NOON + timedelta(seconds=59))
    deliver(app)
    assert len(inbox.emails()) == 1
    clock.move_to(NOON + timedelta(seconds=60))
    deliver(app)
    assert len(inbox.emails()) == 2
    assert rows(app) == []


def test_an_account_is_emailed_five_times_an_hour(
    app: Flask, inbox: Inbox, alice: int, clock: time_machine.Traveller
) -> None:
    ask_every(timedelta(minutes=2), 5, app, clock)
    request_email(app, kind=RESET)
    deliver(app)
    assert len(inbox.emails()) == 5
    assert rows(app)[0].run_after == NOON + timedelta(hours=1)
    clock.move_to(NOON + timedelta(minutes=59, seconds=59))
    deliver(app)
    assert len(inbox.emails()) == 5
    clock.move_to(NOON + timedelta(hours=1))
    deliver(app)
    assert len(inbox.emails()) == 6


def test_links_that_died_of_age_are_not_waited_for(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app = make_app(PASSWORD_RESET_TIMEOUT="900")
    add_user(app, "alice@example.com", PASSWORD)
    ask_every(timedelta(minutes=2), 6, app, clock)
    assert rows(app)[0].run_after == NOON + timedelta(minutes=15)
    clock.move_to(NOON + timedelta(minutes=15))
    deliver(app)
    assert len(Inbox(app).emails()) == 6


def test_invitations_that_live_on_are_waited_for_though_resets_have_died(
    make_app: MakeApp, clock: time_machine.Traveller
) -> None:
    app = make_app(PASSWORD_RESET_TIMEOUT="900")
    ask_every(timedelta(minutes=2), 6, app, clock, kind="register")
    assert rows(app)[0].run_after == NOON + timedelta(hours=1)


def test_emails_of_the_last_minute_are_of_the_hour_too(make_app: MakeApp, clock: time_machine.Traveller) -> None:
    app = make_app(EMAIL_INTERVAL="2", EMAIL_TIMEOUT="1", EMAIL_DEADLINE="1")
    add_user(app, "alice@example.com", PASSWORD)
    ask_every(timedelta(seconds=3), 6, app, clock)
    assert rows(app)[0].run_after == NOON + timedelta(hours=1)


def test_how_often_an_account_is_emailed_is_a_matter_of_settings(
    make_app: MakeApp, clock: time_machine.Traveller
) -> None:
    app = make_app(EMAIL_INTERVAL="120", EMAIL_HOURLY="2")
    add_user(app, "alice@example.com", PASSWORD)
    dues = []
    for _ in range(3):
        request_email(app, kind=RESET)
        deliver(app)
        dues += [row.run_after for row in rows(app)]
        clock.shift(timedelta(minutes=2))
        deliver(app)
    request_email(app, kind=RESET)
    assert len(Inbox(app).emails()) == 2
    assert dues == [NOON + timedelta(hours=1)]


def test_two_requests_within_an_interval_that_was_set_take_two_cooldown_slots(
    make_app: MakeApp, clock: time_machine.Traveller
) -> None:
    app = make_app(EMAIL_INTERVAL="120")
    add_user(app, "alice@example.com", PASSWORD)
    ask_every(timedelta(seconds=90), 2, app, clock)
    assert rows(app)[0].run_after == NOON + timedelta(seconds=120)


@pytest.mark.parametrize(("whose", "mails"), [("alice@example.com", 6), ("bob@example.com", 5)])
def test_emails_whose_links_have_ended_do_not_count_towards_the_accounts_hour(
    whose: str, mails: int, app: Flask, inbox: Inbox, alice: int, clock: time_machine.Traveller
) -> None:
    ids = {"alice@example.com": alice, "bob@example.com": add_user(app, "bob@example.com", PASSWORD)}
    ask_every(timedelta(minutes=2), 5, app, clock)
    with app.app_context():
        events.record(Kind.COMPLETED, ids[whose])
        db.session.commit()
    request_email(app, kind=RESET)
    deliver(app)
    assert len(inbox.emails()) == mails


def test_the_two_kinds_of_request_share_the_cooldown_slots_of_an_account(
    app: Flask, inbox: Inbox, alice: int, clock: time_machine.Traveller
) -> None:
    request_email(app, kind=RESET)
    request_email(app, kind="register")
    deliver(app)
    assert len(inbox.emails()) == 1
    clock.shift(60)
    deliver(app)
    assert subjects(inbox) == ["Reset your password at localhost", "You already have an account at localhost"]


def test_the_cooldown_of_one_account_does_not_delay_another(app: Flask, inbox: Inbox, alice: int) -> None:
    add_user(app, "bob@example.com", PASSWORD)
    for address in ("alice@example.com", "alice@example.com", "bob@example.com"):
        request_email(app, address, RESET)
    deliver(app)
    assert {mail["To"] for mail in inbox.emails()} == {"alice@example.com", "bob@example.com"}


def test_later_requests_merge_into_the_oldest_that_waits(
    app: Flask, inbox: Inbox, alice: int, clock: time_machine.Traveller
) -> None:
    ask_every(timedelta(seconds=1), 5, app, clock)
    assert len(inbox.emails()) == 1
    [waiting] = rows(app)
    assert (waiting.id, waiting.created_at) == (2, NOON + timedelta(seconds=4))
    assert event_kinds(app) == ["requested", "mailed", "merged", "merged", "merged"]
    clock.shift(60)
    deliver(app)
    assert len(inbox.emails()) == 2


def test_requests_spelled_differently_merge_too(app: Flask, inbox: Inbox, alice: int) -> None:
    for address in ("alice@example.com", "Alice@example.com", "ALICE@example.com"):
        request_email(app, address, RESET)
    deliver(app)
    assert len(inbox.emails()) == 1
    assert len(rows(app)) == 1


@pytest.mark.parametrize("number", [2, 6])
def test_of_requests_at_two_workers_one_is_emailed_and_none_is_lost(
    number: int, app: Flask, inbox: Inbox, alice: int
) -> None:
    for _ in range(number):
        request_email(app, kind=RESET)
    deliver_in_threads(app, 2)
    kinds = event_kinds(app)
    assert len(inbox.emails()) == kinds.count("mailed") == 1
    assert kinds.count("mailed") + kinds.count("merged") + len(rows(app)) == number


def test_notices_are_never_delayed(app: Flask, inbox: Inbox, alice: int) -> None:
    request_email(app, kind=RESET)
    for _ in range(8):
        request_email(app, kind=NOTICE)
    deliver(app)
    assert len(inbox.emails()) == 9


def test_notices_claim_no_cooldown_slot(app: Flask, inbox: Inbox, alice: int) -> None:
    for _ in range(6):
        request_email(app, kind=NOTICE)
    request_email(app, kind=RESET)
    deliver(app)
    assert subjects(inbox).count("Reset your password at localhost") == 1


def test_a_send_that_failed_releases_the_cooldown_slot(make_app: MakeApp) -> None:
    with SMTPServer(rcpt_reply=in_turn("450 4.2.1 Later")) as server:
        app = app_for(make_app, server)
        add_user(app, "alice@example.com", PASSWORD)
        request_email(app, kind=RESET)
        deliver(app)
        assert users(app)[0].cooldown_started_at is None
        end_waits(app)
        deliver(app)
        assert len(server.messages) == 1
    assert rows(app) == []


@pytest.mark.parametrize("reply", ["421 4.3.2 Closing", "550 5.7.1 Not you"])
def test_a_server_that_accepts_no_email_costs_no_cooldown_slot(reply: str, make_app: MakeApp) -> None:
    with SMTPServer(mail_reply=in_turn(reply)) as server:
        app = app_for(make_app, server)
        add_user(app, "alice@example.com", PASSWORD)
        request_email(app, kind=RESET)
        done, problem = deliver(app)
        assert done == 0
        assert problem
        assert event_kinds(app) == []
        deliver(app)
        assert len(server.messages) == 1
    assert event_kinds(app) == ["requested", "mailed"]


def test_a_rejected_email_releases_the_cooldown_slot_and_does_not_count(make_app: MakeApp) -> None:
    with SMTPServer(rcpt_reply=in_turn("550 5.1.1 Nobody")) as server:
        app = app_for(make_app, server)
        user_id = add_user(app, "alice@example.com", PASSWORD)
        request_email(app, kind=RESET)
        request_email(app, kind=RESET)
        deliver(app)
        assert len(server.messages) == 1
    assert event_kinds(app, user_id) == ["refused", "requested", "mailed"]


def test_an_email_that_cannot_be_rendered_uses_no_cooldown_slot(app: Flask, alice: int, inbox: Inbox) -> None:
    request_email(app, kind=RESET, html_email_template_name="no/such.html")
    request_email(app, kind=RESET)
    deliver(app)
    assert len(inbox.emails()) == 1


def test_registrations_of_an_address_use_up_none_of_its_owners_resets(
    app: Flask, inbox: Inbox, alice: int, clock: time_machine.Traveller
) -> None:
    for kind in ["register"] * 5 + [RESET]:
        request_email(app, kind=kind)
        deliver(app)
        clock.shift(timedelta(minutes=2))
    assert subjects(inbox).count("Reset your password at localhost") == 1


def test_a_cooldown_slot_that_another_worker_claimed_meanwhile_counts_from_then(
    app: Flask, alice: int, clock: time_machine.Traveller
) -> None:
    with app.app_context():
        user = accounts.find_by_id(alice)
        assert user is not None
        taken = update(User).values(cooldown_started_at=NOON - timedelta(seconds=20))
        db.session.execute(taken, execution_options={"synchronize_session": False})
        assert cooldown.claim(user, EmailKind.PASSWORD_RESET) == NOON + timedelta(seconds=40)
