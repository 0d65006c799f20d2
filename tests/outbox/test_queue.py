"""How rows are leased, settled, merged and purged."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import event, update

from pwreset import outbox
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from pwreset.monitoring import counters, queue_status
from pwreset.monitoring.counters import Counted
from pwreset.outbox import Result
from pwreset.request_info import RequestInfo
from tests.support.app import MakeApp
from tests.support.clock import NOON
from tests.support.outbox import NOTICE, addresses_of, listening, merge, request_email, rows, settle


def claimed(app: Flask) -> OutboxMessage:
    row = claimed_if_due(app)
    assert row is not None
    return row


def claimed_if_due(app: Flask) -> OutboxMessage | None:
    with app.app_context():
        return outbox.claim()


def with_app(app: Flask, action: Callable[..., object], *args: object) -> None:
    with app.app_context():
        action(*args)


def test_a_claim_is_one_statement(app: Flask) -> None:
    request_email(app)
    heard: list[str] = []
    with listening(app, heard.append):
        assert claimed_if_due(app) is not None
    assert len(heard) == 1
    assert heard[0].startswith("UPDATE outbox")
    assert "RETURNING" in heard[0]


def test_a_claim_is_committed_so_no_transaction_stays_open(app: Flask) -> None:
    request_email(app)
    ended: list[str] = []
    with app.app_context():
        engine = db.engine

        def committed(_connection: object) -> None:
            ended.append("commit")

        event.listen(engine, "commit", committed)
        assert outbox.claim() is not None
        assert ended == ["commit"]
        assert not db.session().in_transaction()
        event.remove(engine, "commit", committed)


def test_the_oldest_due_row_is_claimed_first(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        for name in ("first", "second", "third"):
            request_email(app, f"{name}@example.com")
            clock.shift(1)
        assert [claimed(app).address for _ in range(3)] == [
            "first@example.com",
            "second@example.com",
            "third@example.com",
        ]


def test_of_rows_due_at_the_same_moment_the_first_is_claimed_first(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False):
        for number in range(5):
            request_email(app, f"user{number}@example.com")
        assert [claimed(app).address for _ in range(5)] == [f"user{number}@example.com" for number in range(5)]


def test_a_leased_row_is_claimed_by_nobody_else(app: Flask) -> None:
    request_email(app)
    claimed(app)
    assert claimed_if_due(app) is None


def test_a_row_is_not_claimed_before_its_time(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        settle(app, claimed(app), Result.DEFERRED, until=NOON + timedelta(seconds=10))
        clock.shift(9.999)
        assert claimed_if_due(app) is None
        clock.shift(0.001)
        assert claimed_if_due(app) is not None


def test_the_end_of_the_lease_makes_a_row_due_again(make_app: MakeApp) -> None:
    app = make_app(OUTBOX_LEASE_SECONDS=45)
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        first = claimed(app)
        assert first.run_after == NOON + timedelta(seconds=45)
        clock.shift(44)
        assert claimed_if_due(app) is None
        clock.shift(1)
        again = claimed(app)
    assert again.id == first.id
    assert again.attempts == 0


def test_eight_threads_claim_two_hundred_rows_and_none_twice(app: Flask) -> None:
    with app.app_context():
        db.session.add_all(
            OutboxMessage(kind="register", address=f"{number}@example.com", email_key=f"{number}@example.com")
            for number in range(200)
        )
        db.session.commit()

    together = threading.Barrier(8)

    def claim_all() -> list[int]:
        mine = []
        together.wait(10)
        with app.app_context():
            while row := outbox.claim():
                mine.append(row.id)
        return mine

    with ThreadPoolExecutor(8) as pool:
        shares = [future.result() for future in [pool.submit(claim_all) for _ in range(8)]]
    everything = [number for share in shares for number in share]
    assert len(everything) == 200
    assert len(set(everything)) == 200
    assert sum(bool(share) for share in shares) > 1, "one thread did it all: nothing was tried"


@pytest.mark.parametrize("result", [Result.RELEASED, Result.DEFERRED, Result.RETRY, Result.MAYBE_SENT, Result.FAILED])
def test_a_worker_that_lost_its_lease_does_not_reschedule(result: Result, make_app: MakeApp) -> None:
    app = make_app(OUTBOX_LEASE_SECONDS=45)
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        frozen = claimed(app)
        clock.shift(46)
        newer = claimed(app)
        assert settle(app, frozen, result, until=utcnow() + timedelta(days=1), reason="late") is None
        [row] = rows(app)
    assert (row.run_after, row.attempts, row.failure, row.failed_at) == (newer.run_after, 0, None, None)


@pytest.mark.parametrize(("result", "left"), [(Result.SENT, 0), (Result.NO_RECIPIENT, 1)])
def test_a_worker_that_lost_its_lease_may_delete_what_it_sent_and_nothing_else(
    result: Result, left: int, make_app: MakeApp
) -> None:
    """What was for nobody may be for somebody now: the account may have been switched on meanwhile."""
    app = make_app(OUTBOX_LEASE_SECONDS=45)
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        frozen = claimed(app)
        clock.shift(46)
        claimed(app)
        settle(app, frozen, result)
    assert len(rows(app)) == left


@pytest.mark.parametrize("by_then", ["leased", "merged"])
def test_a_worker_that_lost_its_lease_does_not_merge(by_then: str, make_app: MakeApp) -> None:
    app = make_app(OUTBOX_LEASE_SECONDS=45)
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        settle(app, claimed(app), Result.DEFERRED, until=NOON + timedelta(minutes=1))
        request_email(app)
        frozen = claimed(app)
        clock.shift(46)
        newer = claimed(app)
        if by_then == "merged":
            settle(app, newer, Result.MERGED, until=utcnow())
        before = [(row.id, row.run_after, row.leased) for row in rows(app)]
        with app.app_context():
            assert not merge(frozen, utcnow())
            db.session.rollback()
            totals = counters.totals()
        assert [(row.id, row.run_after, row.leased) for row in rows(app)] == before
    assert totals.get((Counted.MERGED, frozen.kind), 0) == (by_then == "merged")


def test_a_released_row_is_due_at_once_uncharged_and_in_its_place(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app, "first@example.com")
        clock.shift(1)
        request_email(app, "second@example.com")
        clock.shift(1)
        settle(app, claimed(app), Result.RELEASED)
        again = claimed(app)
    assert (again.address, again.attempts) == ("first@example.com", 0)


def test_a_deferred_row_is_not_charged(app: Flask) -> None:
    until = utcnow() + timedelta(minutes=5)
    request_email(app)
    settle(app, claimed(app), Result.DEFERRED, until=until)
    [row] = rows(app)
    assert (row.run_after, row.attempts, row.failure) == (until, 0, None)


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, 30), (1, 60), (2, 120), (6, 1920), (7, 3600), (11, 3600), (5000, 3600)]
)
def test_a_back_off_doubles_up_to_an_hour(attempts: int, seconds: int, app: Flask) -> None:
    with time_machine.travel(NOON, tick=False):
        request_email(app)
        row = claimed(app)
        row.attempts = attempts
        settle(app, row, Result.RETRY, reason="later")
        [row] = rows(app)
    assert (row.run_after, row.attempts, row.failure) == (NOON + timedelta(seconds=seconds), attempts + 1, "later")


def test_a_failed_row_stays_and_is_claimed_no_more(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        settle(app, claimed(app), Result.FAILED, reason="no such mailbox")
        [row] = rows(app)
        assert (row.run_after, row.failed_at, row.failure) == (None, NOON, "no such mailbox")
        clock.shift(timedelta(days=20))
        assert claimed_if_due(app) is None


def test_a_retry_makes_failed_rows_due_as_if_asked_for_now(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app, "failed@example.com")
        row = claimed(app)
        row.attempts = 3
        settle(app, row, Result.FAILED, reason="refused")
        request_email(app, "leased@example.com")
        claimed(app)
        clock.shift(timedelta(seconds=30))
        with app.app_context():
            assert outbox.retry_failed() == 1
        again = claimed(app)
    assert again.address == "failed@example.com"
    assert again.created_at == NOON + timedelta(seconds=30)
    assert (again.attempts, again.failed_at, again.failure) == (0, None, None)


def test_the_counts_tell_due_waiting_and_failed_rows(app: Flask) -> None:
    for name in ("failed", "leased", "due", "due2"):
        request_email(app, f"{name}@example.com")
    settle(app, claimed(app), Result.FAILED, reason="refused")
    claimed(app)
    with app.app_context():
        assert queue_status.counts() == {"due": 2, "waiting": 1, "failed": 1}
        assert [row.address for row in queue_status.failed()] == ["failed@example.com"]


def test_the_counts_of_an_empty_outbox_are_zero(app: Flask) -> None:
    with app.app_context():
        assert queue_status.counts() == {"due": 0, "waiting": 0, "failed": 0}
        assert queue_status.oldest_due() is None


def test_the_oldest_due_row_tells_since_when(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock, app.app_context():
        request_email(app)
        clock.shift(90)
        request_email(app)
        assert queue_status.oldest_due() == NOON


def test_failed_rows_are_purged_at_their_age_and_no_others(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        for name in ("old", "young", "waiting"):
            request_email(app, f"{name}@example.com")
        settle(app, claimed(app), Result.FAILED, reason="refused")
        clock.shift(timedelta(days=1))
        settle(app, claimed(app), Result.FAILED, reason="refused")
        clock.shift(timedelta(days=29, seconds=1))
        with app.app_context():
            outbox.purge_failed(timedelta(days=30))
            db.session.commit()
    assert addresses_of(app) == ["young@example.com", "waiting@example.com"]


def test_a_row_stands_or_falls_with_the_transaction_it_was_added_in(app: Flask) -> None:
    with app.app_context():
        outbox.enqueue("register", "alice@example.com", RequestInfo())
        db.session.rollback()
    assert rows(app) == []


def test_only_the_younger_of_two_rows_for_the_same_email_merges(app: Flask) -> None:
    request_email(app, "alice@example.com", "register")
    request_email(app, "ALICE@example.com", "register")
    request_email(app, "alice@example.com", "password_reset")
    request_email(app, "bob@example.com", "register")
    with app.app_context():
        assert [merge(row, utcnow()) for row in rows(app)] == [False, True, False, False]
    assert addresses_of(app) == ["alice@example.com", "alice@example.com", "bob@example.com"]


def test_a_row_does_not_merge_into_one_that_was_claimed(app: Flask) -> None:
    request_email(app, "alice@example.com", "register")
    request_email(app, "alice@example.com", "register")
    claimed(app)
    with app.app_context():
        assert not merge(rows(app)[1], NOON + timedelta(days=9))


def test_a_row_keeps_who_asked_and_what_for(app: Flask) -> None:
    client = RequestInfo("192.0.2.1", "Firefox/140", "pl", "http://localhost:5000")
    with app.app_context():
        outbox.enqueue("register", "ALICE@example.com", client, {"a": 1})
        db.session.commit()
    [row] = rows(app)
    assert (row.kind, row.address, row.email_key, row.options) == (
        "register",
        "ALICE@example.com",
        "alice@example.com",
        {"a": 1},
    )
    assert RequestInfo(row.client_address, row.user_agent, row.language, row.origin) == client


def test_the_older_row_lives_as_long_as_the_one_that_merged_into_it(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app, "alice@example.com", "register")
        clock.shift(timedelta(hours=23))
        request_email(app, "alice@example.com", "register")
        with app.app_context():
            assert merge(rows(app)[1], utcnow())
    assert [row.created_at for row in rows(app)] == [NOON + timedelta(hours=23)]


def test_a_row_that_failed_for_good_takes_no_younger_one_with_it(app: Flask) -> None:
    request_email(app, "alice@example.com", "register")
    settle(app, claimed(app), Result.FAILED, reason="refused")
    request_email(app, "alice@example.com", "register")
    with app.app_context():
        assert not merge(rows(app)[1], utcnow())
    assert len(rows(app)) == 2


@pytest.mark.parametrize(("turn", "merges"), [(29, False), (30, True)])
def test_a_row_that_failed_before_takes_a_younger_one_with_it_that_would_wait_as_long(
    app: Flask, turn: int, merges: bool
) -> None:
    with time_machine.travel(NOON, tick=False):
        request_email(app, "alice@example.com", "register")
        settle(app, claimed(app), Result.RETRY, reason="later")  # by 30 s
        request_email(app, "alice@example.com", "register")
        younger = claimed(app)
        with app.app_context():
            assert merge(younger, NOON + timedelta(seconds=turn)) == merges
            db.session.rollback()
    assert len(rows(app)) == 2 - merges


# --- whose lease, and which transaction


def test_of_two_rows_leased_at_the_same_moment_one_is_done_with_alone(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False):
        for name in ("first", "second"):
            request_email(app, f"{name}@example.com")
        first, second = claimed(app), claimed(app)
        settle(app, first, Result.NO_RECIPIENT)
        assert [row.run_after for row in rows(app)] == [second.run_after]


@pytest.mark.parametrize(("asked", "expires"), [(NOON - timedelta(seconds=1), True), (NOON, False)])
def test_a_row_expires_once_it_is_older_than_its_time(app: Flask, asked: datetime, expires: bool) -> None:
    with time_machine.travel(asked, tick=False):
        for name in ("first", "second"):
            request_email(app, f"{name}@example.com")
        settled = settle(app, claimed(app), Result.EXPIRED, created_before=NOON)
    assert settled is (Result.EXPIRED if expires else Result.RELEASED)
    assert addresses_of(app) == ["first@example.com", "second@example.com"][expires:]


def test_a_row_that_a_newer_request_merged_into_does_not_expire(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        row = claimed(app)
        clock.shift(2)
        with app.app_context():
            db.session.execute(update(OutboxMessage).values(created_at=utcnow()))
            db.session.commit()
        assert settle(app, row, Result.EXPIRED, created_before=NOON + timedelta(seconds=1)) is Result.RELEASED
    assert len(rows(app)) == 1


def test_a_younger_row_merges_into_one_that_was_sent_back(app: Flask) -> None:
    request_email(app)
    settle(app, claimed(app), Result.FAILED, reason="refused")
    with_app(app, outbox.retry_failed)
    request_email(app)
    with app.app_context():
        assert merge(rows(app)[1], utcnow())


def test_of_older_rows_the_first_that_waits_stands_for_the_youngest(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        for _ in range(4):
            request_email(app)
        settle(app, claimed(app), Result.FAILED, reason="refused")
        clock.shift(1)
        request_email(app)
        with app.app_context():
            assert merge(rows(app)[4], utcnow())
    assert [(row.created_at - NOON).total_seconds() for row in rows(app)] == [0, 1, 0, 0]


# --- what is counted


def test_rows_that_come_to_nothing_are_counted(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False):
        for _ in range(2):
            request_email(app, kind="register")
            settle(app, claimed(app), Result.FAILED, reason="refused")
        request_email(app)
        settle(app, claimed(app), Result.RETRY, reason="later")
    with time_machine.travel(NOON + timedelta(days=31), tick=False), app.app_context():
        outbox.purge_failed(timedelta(days=30))
        db.session.commit()
        assert counters.totals() == {("failed", "register"): 2, ("purged", "register"): 2, ("retried", NOTICE): 1}


def test_a_row_that_failed_exactly_so_long_ago_is_not_purged(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        request_email(app)
        settle(app, claimed(app), Result.FAILED, reason="refused")
        clock.shift(timedelta(days=30))
        with app.app_context():
            outbox.purge_failed(timedelta(days=30))
            db.session.commit()
    assert len(rows(app)) == 1
