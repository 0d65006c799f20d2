"""The clock is set forward or back: no row waits for a moment that was never intended."""

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import update

from pwreset import outbox
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from pwreset.outbox import Outcome, Result
from pwreset.outbox.worker import Worker
from tests.support.app import MakeApp, add_user
from tests.support.clock import NOON
from tests.support.outbox import app_for, deliver, end_waits, merge, request_email, rows
from tests.support.passwords import PASSWORD
from tests.support.smtp import SMTPServer, in_turn

ALICE, RESET = "alice@example.com", "password_reset"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def recall(app: Flask) -> int:
    with app.app_context():
        return outbox.repair_future_dates()


@pytest.mark.parametrize("step", [HOUR, DAY, timedelta(days=400)])
def test_what_was_asked_for_before_the_clock_was_set_back_is_due_at_once(app: Flask, clock, step) -> None:
    clock.shift(step)
    request_email(app)
    clock.shift(-step)
    assert deliver(app) == (0, None)
    assert recall(app) == 1
    assert rows(app)[0].created_at == NOON
    assert deliver(app) == (1, None)


def test_a_running_worker_sees_to_it(app: Flask, clock, caplog) -> None:
    clock.shift(DAY)
    request_email(app)
    clock.shift(-DAY)
    Worker(app)._pass()
    assert rows(app) == []
    assert "The clock was set back; emails that waited for the old time are due now" in caplog.text


def test_an_account_emailed_by_a_clock_that_was_ahead_is_emailed_again(app: Flask, clock, alice: int, inbox) -> None:
    clock.shift(DAY)
    request_email(app, ALICE, RESET)
    deliver(app)
    clock.shift(-DAY)
    request_email(app, ALICE, RESET)
    deliver(app)
    assert len(inbox.emails()) == 2


def test_five_emails_of_a_clock_that_was_ahead_do_not_use_up_the_hour(app: Flask, clock, alice: int, inbox) -> None:
    clock.shift(DAY)
    for _ in range(5):
        request_email(app, ALICE, RESET)
        deliver(app)
        clock.shift(60)
    clock.shift(-DAY)
    request_email(app, ALICE, RESET)
    deliver(app)
    assert len(inbox.emails()) == 6


def test_a_lease_or_a_back_off_of_a_clock_that_was_a_day_ahead_is_over(make_app: MakeApp, clock) -> None:
    with SMTPServer(rcpt_reply=in_turn("450 later")) as server:
        app = app_for(make_app, server)
        clock.shift(DAY)
        request_email(app, "first@example.com")
        deliver(app)
        request_email(app, "second@example.com")
        with app.app_context():
            assert outbox.claim() is not None
        clock.shift(-DAY)
        assert recall(app) == 2
        assert deliver(app) == (2, None)


def test_what_waits_for_its_own_time_is_left_alone(make_app: MakeApp, clock) -> None:
    with SMTPServer(rcpt_reply=in_turn(*["450 later"] * 20)) as server:
        app = app_for(make_app, server)
        add_user(app, ALICE, PASSWORD)
        request_email(app)
        for _ in range(9):  # a back-off of an hour
            deliver(app)
            end_waits(app)
        deliver(app)
        request_email(app)
        with app.app_context():
            row = outbox.claim()
            assert row is not None
            outbox.settle(row, Outcome(Result.DEFERRED, until=NOON + HOUR))
            request_email(app)
            assert outbox.claim() is not None
        before = [row.run_after for row in rows(app)]
        assert recall(app) == 0
        assert [row.run_after for row in rows(app)] == before


@pytest.mark.parametrize(
    ("changes", "repaired"),
    [({}, 1), ({"attempts": 1}, 0), ({"leased": True}, 0), ({"attempts": 1, "leased": True}, 0)],
)
def test_of_rows_created_in_the_future_only_those_without_an_attempt_are_due_before_their_time(
    app: Flask, clock, changes: dict[str, object], repaired: int
) -> None:
    clock.shift(timedelta(minutes=30))
    request_email(app)
    with app.app_context():
        db.session.execute(update(OutboxMessage).values(run_after=NOON + timedelta(minutes=30), **changes))
        db.session.commit()
    clock.shift(-timedelta(minutes=30))
    assert recall(app) == repaired


def test_the_clock_of_another_machine_may_be_a_minute_ahead(app: Flask, clock) -> None:
    clock.shift(60)
    request_email(app)
    clock.shift(-60)
    assert recall(app) == 0
    clock.shift(60)
    assert deliver(app) == (1, None)


@pytest.mark.parametrize(("asked", "due", "recalled"), [(120, 130, 0), (121, 120, 0), (121, 121, 1)])
def test_the_clock_of_another_machine_may_be_two_minutes_ahead_and_no_more(
    app: Flask, clock, asked: int, due: int, recalled: int
) -> None:
    clock.shift(asked)
    request_email(app)
    with app.app_context():
        outbox.settle(outbox.claim(), Outcome(Result.DEFERRED, until=NOON + timedelta(seconds=due)))
    clock.shift(-asked)
    assert recall(app) == recalled


@pytest.mark.parametrize(("seconds", "recalled"), [(3600 + 60 + 120, 0), (3600 + 60 + 121, 1)])
def test_nothing_waits_for_longer_than_the_longest_back_off_a_lease_and_two_minutes(
    app: Flask, clock, seconds: int, recalled: int
) -> None:
    request_email(app)
    with app.app_context():
        outbox.settle(outbox.claim(), Outcome(Result.DEFERRED, until=NOON + timedelta(seconds=seconds)))
    assert recall(app) == recalled


def test_a_row_that_a_clock_had_leased_takes_a_younger_one_with_it(app: Flask, clock) -> None:
    clock.shift(DAY)
    request_email(app)
    with app.app_context():
        assert outbox.claim()
    clock.shift(-DAY)
    recall(app)
    request_email(app)
    with app.app_context():
        assert merge(rows(app)[1], NOON)
