"""What settling an outcome writes: all of it in one commit, and nothing once the lease is lost."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import event

from pwreset import accounts, outbox
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from pwreset.monitoring import counters
from pwreset.outbox import EmailKind, Outcome, Result, cooldown
from pwreset.outbox.cooldown import Slot
from tests.support.clock import NOON
from tests.support.outbox import event_kinds, request_email, rows, users

LATER = NOON + timedelta(minutes=1)


@dataclass(frozen=True)
class Written:
    """What is in the database afterwards."""

    counter: str | None
    events: tuple[str, ...]
    keeps_slot: bool
    run_after: datetime | None = None  # of a row that stays
    is_deleted: bool = False
    attempts: int = 0


WRITTEN = {
    Result.SENT: Written("delivered", ("requested", "mailed"), keeps_slot=True, is_deleted=True),
    Result.MAYBE_SENT: Written(
        "retried", ("requested", "mailed"), keeps_slot=True, run_after=NOON + timedelta(seconds=30), attempts=1
    ),
    Result.RETRY: Written("retried", (), keeps_slot=False, run_after=NOON + timedelta(seconds=30), attempts=1),
    Result.FAILED: Written("failed", ("refused",), keeps_slot=False),
    Result.EXPIRED: Written("expired", ("expired",), keeps_slot=False, is_deleted=True),
    Result.NO_RECIPIENT: Written("unaddressed", (), keeps_slot=False, is_deleted=True),
    Result.MERGED: Written("merged", ("merged",), keeps_slot=False, is_deleted=True),
    Result.DEFERRED: Written(None, (), keeps_slot=False, run_after=LATER),
    Result.RELEASED: Written(None, (), keeps_slot=False, run_after=NOON),
}


@dataclass(frozen=True)
class Attempted:
    """A leased row with the slot that its attempt claimed, and an older row that it could merge into."""

    row: OutboxMessage
    older: OutboxMessage
    slot: Slot
    user_id: int


@pytest.fixture
def attempted(app: Flask, alice: int) -> Attempted:
    with time_machine.travel(NOON, tick=False), app.app_context():
        request_email(app, kind="password_reset")
        older = outbox.claim()
        assert older is not None
        outbox.settle(older, Outcome(Result.DEFERRED, until=LATER))
        request_email(app, kind="password_reset")
        row = outbox.claim()
        assert row is not None
        user = accounts.find_by_id(alice)
        assert user is not None
        slot = cooldown.claim(user, EmailKind.PASSWORD_RESET)
        assert isinstance(slot, Slot)
        return Attempted(row, older, slot, alice)


def settle(app: Flask, attempted: Attempted, result: Result, at: datetime = NOON) -> tuple[Outcome | None, int]:
    """Settle the outcome, and return what was settled and how many commits that took."""
    outcome = Outcome(
        result, user_id=attempted.user_id, reason="why", until=LATER, created_before=at + timedelta(seconds=1)
    )
    commits: list[str] = []

    def count(_connection: object) -> None:
        commits.append("commit")

    with time_machine.travel(at, tick=False), app.app_context():
        event.listen(db.engine, "commit", count)
        try:
            settled = outbox.settle(attempted.row, outcome, attempted.slot)
        finally:
            event.remove(db.engine, "commit", count)
    return settled, len(commits)


def totals(app: Flask) -> dict[str, int]:
    with app.app_context():
        return {name: number for (name, _), number in counters.totals().items()}


def test_the_table_of_this_test_has_every_outcome() -> None:
    assert WRITTEN.keys() == set(Result)


@pytest.mark.parametrize("result", list(Result))
def test_an_outcome_is_written_in_one_commit(app: Flask, attempted: Attempted, result: Result) -> None:
    expected = WRITTEN[result]
    settled, commits = settle(app, attempted, result)
    assert settled is not None
    assert (settled.result, commits) == (result, 1)
    assert totals(app) == ({expected.counter: 1} if expected.counter else {})
    assert tuple(event_kinds(app, attempted.user_id)) == expected.events
    assert (users(app)[0].cooldown_started_at is not None) is expected.keeps_slot
    found = {row.id: row for row in rows(app)}
    assert (attempted.row.id not in found) is expected.is_deleted
    if not expected.is_deleted:
        row = found[attempted.row.id]
        assert (row.run_after, row.attempts, row.leased) == (expected.run_after, expected.attempts, False)


@pytest.mark.parametrize("result", [result for result in Result if result is not Result.SENT])
def test_an_outcome_whose_lease_is_lost_writes_nothing(app: Flask, attempted: Attempted, result: Result) -> None:
    with time_machine.travel(NOON + timedelta(seconds=61), tick=False), app.app_context():
        claimed = {row.id: row for row in (outbox.claim(), outbox.claim()) if row}
    assert claimed.keys() == {attempted.older.id, attempted.row.id}
    settled, commits = settle(app, attempted, result, NOON + timedelta(seconds=62))
    assert (settled, commits) == (None, 0)
    assert totals(app) == {}
    assert event_kinds(app, attempted.user_id) == []
    assert users(app)[0].cooldown_started_at == attempted.slot.claimed_at
    assert {row.id: (row.run_after, row.leased, row.attempts) for row in rows(app)} == {
        row.id: (row.run_after, True, 0) for row in claimed.values()
    }


def test_a_sent_email_is_recorded_and_its_row_deleted_though_the_lease_is_lost(
    app: Flask, attempted: Attempted
) -> None:
    with time_machine.travel(NOON + timedelta(seconds=61), tick=False), app.app_context():
        assert outbox.claim() is not None
        assert outbox.claim() is not None
    settled, commits = settle(app, attempted, Result.SENT, NOON + timedelta(seconds=62))
    assert settled is not None
    assert commits == 1
    assert totals(app) == {"delivered": 1}
    assert event_kinds(app, attempted.user_id) == ["requested", "mailed"]
    assert [row.id for row in rows(app)] == [attempted.older.id]


def test_an_email_that_two_workers_sent_has_two_events_and_counts_as_one_row(app: Flask, attempted: Attempted) -> None:
    for _ in range(2):
        settle(app, attempted, Result.SENT)
    assert totals(app) == {"delivered": 1}
    assert event_kinds(app, attempted.user_id) == ["requested", "mailed"] * 2


@pytest.mark.parametrize(("result", "fallback"), [(Result.MERGED, Result.DEFERRED), (Result.EXPIRED, Result.RELEASED)])
def test_an_outcome_that_no_longer_applies_falls_back(
    app: Flask, attempted: Attempted, result: Result, fallback: Result
) -> None:
    with time_machine.travel(NOON, tick=False), app.app_context():
        outbox.settle(attempted.older, Outcome(Result.SENT))  # nothing is left to merge into
        db.session.get_one(OutboxMessage, attempted.row.id).created_at = NOON + timedelta(hours=1)  # a newer request
        db.session.commit()
    settled, commits = settle(app, attempted, result)
    assert settled is not None
    assert (settled.result, commits) == (fallback, 1)
    assert totals(app) == {"delivered": 1}
    assert event_kinds(app, attempted.user_id) == []
