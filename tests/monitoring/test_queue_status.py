"""Queue status: every requested email is part of exactly one number, and a missing worker is noticed."""

from datetime import timedelta

from flask import Flask

from pwreset import outbox
from pwreset.extensions import db
from pwreset.monitoring import counters, queue_status
from pwreset.monitoring.counters import Counted
from pwreset.outbox import Outcome, Result
from tests.support.app import Inbox, MakeApp, Visitor, add_user
from tests.support.clock import NOON
from tests.support.outbox import app_for, deliver, end_waits, request_email
from tests.support.pages import link_in
from tests.support.passwords import PASSWORD
from tests.support.smtp import SMTPServer, in_turn

ALICE, NOBODY, RESET = "alice@example.com", "nobody@example.com", "password_reset"


def requests(app: Flask) -> dict[str, int]:
    with app.app_context():
        return queue_status.requests()


def totals(app: Flask) -> dict[tuple[str, str], int]:
    with app.app_context():
        return {key: number for key, number in counters.totals().items() if key[0] != "seen"}


def is_stalled(app: Flask) -> bool:
    with app.app_context():
        return queue_status.is_stalled()


def test_a_request_is_counted_while_it_waits_and_when_it_is_emailed(app: Flask, visitor: Visitor, alice: int) -> None:
    visitor.request_reset(ALICE)
    assert (requests(app), totals(app)) == ({RESET: 1}, {})
    deliver(app)
    assert (requests(app), totals(app)) == ({RESET: 1}, {("delivered", RESET): 1})


def test_a_request_for_nobody_is_counted_as_one(app: Flask, visitor: Visitor) -> None:
    visitor.request_reset(NOBODY)
    deliver(app)
    assert (requests(app), totals(app)) == ({RESET: 1}, {("unaddressed", RESET): 1})


def test_a_request_that_another_email_answers_is_counted_as_merged(app: Flask, alice: int) -> None:
    for _ in range(3):
        request_email(app, ALICE, RESET)
    deliver(app)
    assert requests(app) == {RESET: 3}
    assert totals(app) == {("delivered", RESET): 1, ("merged", RESET): 1}
    with app.app_context():
        assert queue_status.counts() == {"due": 0, "waiting": 1, "failed": 0}


def test_a_request_that_is_too_old_is_counted_as_expired(app: Flask, clock, alice: int) -> None:
    request_email(app, ALICE, RESET)
    clock.shift(timedelta(hours=25))
    deliver(app)
    assert (requests(app), totals(app)) == ({RESET: 1}, {("expired", RESET): 1})


def test_a_failure_for_now_is_counted_each_time_and_the_email_once(make_app: MakeApp) -> None:
    with SMTPServer(rcpt_reply=in_turn("450 later", "451 later")) as server:
        app = app_for(make_app, server)
        add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        for _ in range(3):
            deliver(app)
            end_waits(app)
    assert (requests(app), totals(app)) == ({RESET: 1}, {("delivered", RESET): 1, ("retried", RESET): 2})


def test_an_email_that_failed_for_good_stays_a_request_when_it_is_purged(make_app: MakeApp, clock) -> None:
    with SMTPServer(rcpt_reply="550 no") as server:
        app = app_for(make_app, server)
        add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        deliver(app)
    assert (requests(app), totals(app)) == ({RESET: 1}, {("failed", RESET): 1})
    clock.shift(timedelta(days=31))
    with app.app_context():
        outbox.purge_failed(timedelta(days=30))
        db.session.commit()
    assert (requests(app), totals(app)) == ({RESET: 1}, {("failed", RESET): 1, ("purged", RESET): 1})


def test_an_email_that_is_sent_again_is_still_one_request(make_app: MakeApp) -> None:
    with SMTPServer(rcpt_reply=in_turn("550 no")) as server:
        app = app_for(make_app, server)
        add_user(app, ALICE, PASSWORD)
        request_email(app, ALICE, RESET)
        deliver(app)
        with app.app_context():
            assert outbox.retry_failed() == 1
        deliver(app)
    assert (requests(app), totals(app)) == ({RESET: 1}, {("delivered", RESET): 1, ("failed", RESET): 1})


def test_a_row_that_two_workers_delivered_is_counted_once(app: Flask) -> None:
    request_email(app)
    with app.app_context():
        row = outbox.claim()
        assert row is not None
        outbox.settle(row, Outcome(Result.SENT))
        outbox.settle(row, Outcome(Result.SENT))
    assert totals(app) == {("delivered", "password_changed"): 1}


def test_a_worker_that_lost_its_lease_counts_no_failure(app: Flask, clock) -> None:
    request_email(app)
    with app.app_context():
        frozen = outbox.claim()
        assert frozen is not None
        clock.shift(timedelta(seconds=61))
        assert outbox.claim() is not None
        assert not outbox.settle(frozen, Outcome(Result.RETRY, reason="late"))
        assert not outbox.settle(frozen, Outcome(Result.FAILED, reason="late"))
    assert totals(app) == {}


def test_a_completed_reset_is_counted_and_a_dead_link_is_not(
    app: Flask, visitor: Visitor, inbox: Inbox, alice: int
) -> None:
    link = inbox.reset_link()
    visitor.choose(link)
    Visitor(app).open_link(link)
    assert totals(app)["completed", "reset"] == 1


def test_a_password_chosen_by_invitation_is_counted_apart(app: Flask, visitor: Visitor, inbox: Inbox) -> None:
    visitor.submit("/register/", email="new@example.com")
    visitor.choose(link_in(inbox.deliver_one()))
    assert {key: n for key, n in totals(app).items() if key[0] == "completed"} == {("completed", "invite"): 1}


# --- whether anybody delivers


def test_an_empty_outbox_wants_no_worker(app: Flask, clock) -> None:
    clock.shift(timedelta(days=1))
    assert not is_stalled(app)


def test_email_that_nobody_takes_for_a_minute_is_noticed(app: Flask, clock) -> None:
    request_email(app)
    clock.shift(59)
    assert not is_stalled(app)
    clock.shift(2)
    assert is_stalled(app)


def test_a_long_queue_that_somebody_works_at_is_none_of_that(app: Flask, clock) -> None:
    for _ in range(2):
        request_email(app)
    clock.shift(300)
    with app.app_context():
        counters.add(Counted.WORKER_HEARTBEAT, "worker")
        db.session.commit()
    assert not is_stalled(app)
    clock.shift(61)
    assert is_stalled(app)


def test_a_worker_that_a_clock_ahead_has_seen_is_not_believed(app: Flask, clock) -> None:
    clock.shift(timedelta(days=1))
    with app.app_context():
        counters.add(Counted.WORKER_HEARTBEAT, "worker")
        db.session.commit()
    clock.shift(timedelta(days=-1))
    request_email(app)
    clock.shift(61)
    assert is_stalled(app)


def test_a_worker_is_seen_when_it_takes_an_email(app: Flask, clock) -> None:
    request_email(app)
    clock.shift(120)
    request_email(app)
    deliver(app)
    with app.app_context():
        assert counters.last(Counted.WORKER_HEARTBEAT) == NOON + timedelta(seconds=120)


def test_a_mail_server_that_is_down_is_no_missing_worker(make_app: MakeApp, clock) -> None:
    with SMTPServer() as server:
        port = server.port
    app = make_app(EMAIL_HOST="localhost", EMAIL_FROM="accounts@example.com", EMAIL_PORT=port)
    request_email(app)
    clock.shift(600)
    _, problem = deliver(app)
    assert problem is not None
    assert not is_stalled(app)


def test_email_that_waits_for_its_time_wants_no_worker(app: Flask, clock) -> None:
    request_email(app)
    with app.app_context():
        row = outbox.claim()
        assert row is not None
        outbox.settle(row, Outcome(Result.DEFERRED, until=NOON + timedelta(hours=1)))
    clock.shift(600)
    assert not is_stalled(app)


def test_a_long_deadline_for_one_email_is_waited_for(make_app: MakeApp, clock) -> None:
    app = make_app(EMAIL_DEADLINE="59", EMAIL_TIMEOUT="10")
    request_email(app)
    clock.shift(70)
    assert not is_stalled(app)
    clock.shift(5)
    assert is_stalled(app)
