"""The rows of mail waiting to be sent; the only module that writes them.

Decides how a row is added, leased, put off, given up and taken away, and counts each. `enqueue` and `purge_failed`
belong to the caller's transaction (a row stands or falls with what it tells of); the others that write commit at once,
so that no transaction stays open while a mail server is spoken to. It must not look up users or render anything.
"""

from collections import Counter as Tally
from datetime import datetime, timedelta
from typing import Any

from flask import current_app
from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from pwreset.addresses import email_key
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from pwreset.monitoring import counters
from pwreset.monitoring.counters import Counted
from pwreset.request_info import RequestInfo

FIRST_BACK_OFF, LONGEST_BACK_OFF = timedelta(seconds=30), timedelta(hours=1)
CLOCKS_DIFFER = timedelta(minutes=2)  # between two machines, and nobody's clock was set


def enqueue(kind: str, address: str, client: RequestInfo, options: dict[str, Any] | None = None) -> None:
    """Add a mail to the present transaction; it is written and sent later, by whoever delivers.

    Args:
        kind: `password_reset`, `register` or `password_changed`.
        address: in the form of `addresses.normalize`; whether it has an account is not asked here.
        client: who asked.
        options: what the writer of the mail is told (JSON values).
    """
    row = OutboxMessage(
        kind=kind,
        address=address,
        email_key=email_key(address),
        client_address=client.address,
        user_agent=client.user_agent,
        language=client.language,
        origin=client.origin,
        options=options or {},
    )
    db.session.add(row)
    db.session.flush()


def claim() -> OutboxMessage | None:
    """Lease the oldest due row for OUTBOX_LEASE_SECONDS, or return None.

    One statement: choosing and leasing in two was seen to hand one row to two workers. The row comes back detached,
    as it was leased.
    """
    now = utcnow()
    lease = now + timedelta(seconds=current_app.config["OUTBOX_LEASE_SECONDS"])
    due = select(OutboxMessage.id).where(OutboxMessage.run_after <= now)
    oldest = due.order_by(OutboxMessage.run_after, OutboxMessage.id).limit(1).with_for_update(skip_locked=True)
    leased = (
        update(OutboxMessage)
        .where(OutboxMessage.id == oldest.scalar_subquery(), OutboxMessage.run_after <= now)
        .values(run_after=lease, leased=True)
        .returning(OutboxMessage)
    )
    row = db.session.scalar(leased)
    if row is not None:
        db.session.expunge(row)
    db.session.commit()
    return row


def discard(row: OutboxMessage, outcome: Counted) -> None:
    """Delete a row that is done with, together with what else the transaction holds.

    One whose mail was sent goes, lease or no lease; with any other the one who has the lease now may see it otherwise.
    """
    _delete(OutboxMessage.id == row.id if outcome is Counted.DELIVERED else _leased_as(row), outcome)
    db.session.commit()


def is_gone(row: OutboxMessage) -> bool:
    """Whether a row was deleted already."""
    return db.session.scalar(select(OutboxMessage.id).where(OutboxMessage.id == row.id)) is None


def expire(row: OutboxMessage, asked_before: datetime) -> bool:
    """Delete a leased row that was asked for too long ago; False if a newer request merged into it meanwhile."""
    still_old = OutboxMessage.created_at < asked_before
    found = _delete(and_(_leased_as(row), still_old), Counted.EXPIRED)
    db.session.commit() if found else db.session.rollback()
    return found > 0


def recall() -> int:
    """Make due what a clock that was ahead has put off, and return how many: nothing else waits for longer.

    A row that was asked for in the future, or waits for more than any back-off, lease or turn, was written before the
    clock was set back. It counts as asked for now, so that it expires no later than others.
    """
    now = utcnow()
    longest = LONGEST_BACK_OFF + timedelta(seconds=current_app.config["OUTBOX_LEASE_SECONDS"]) + CLOCKS_DIFFER
    fresh = OutboxMessage.attempts == 0, OutboxMessage.leased.is_(False), OutboxMessage.created_at > now + CLOCKS_DIFFER
    ahead = OutboxMessage.run_after > now + CLOCKS_DIFFER, or_(OutboxMessage.run_after > now + longest, and_(*fresh))
    changes = {"run_after": now, "created_at": now, "leased": False}
    found = db.session.execute(update(OutboxMessage).where(*ahead).values(changes))
    db.session.commit()
    return int(found.rowcount)  # type: ignore[attr-defined]


def release(row: OutboxMessage) -> bool:
    """Give a leased row back, due at once, uncharged, and in its old place in the queue."""
    return _reschedule(row, run_after=min(row.created_at, utcnow()))


def put_off(row: OutboxMessage, until: datetime) -> bool:
    """Let a leased row wait, uncharged."""
    return _reschedule(row, run_after=until)


def back_off(row: OutboxMessage, failure: str) -> bool:
    """Charge a leased row with a failure: 30 s, doubling, at most 1 h."""
    wait = min(FIRST_BACK_OFF * 2 ** min(row.attempts, 10), LONGEST_BACK_OFF)
    changes = {"run_after": utcnow() + wait, "attempts": row.attempts + 1, "failure": failure}
    return _reschedule(row, Counted.RETRIED, **changes)


def give_up(row: OutboxMessage, failure: str) -> bool:
    """Keep a leased row that failed for good, for the operator to see and to send back."""
    return _reschedule(row, Counted.FAILED, run_after=None, failed_at=utcnow(), failure=failure)


def merge(row: OutboxMessage, until: datetime) -> bool:
    """Let an older row for the same mail to the same address stand for this one too, and delete this one.

    The older of two always stays, so that two workers can't each merge into the other's. It takes over the newer
    moment of asking, so that it does not expire for both. Left alone are one that failed before and waits for longer
    than this one would, and one under a lease, whose mail may be written already, with a link that is dead by now.

    Args:
        row: leased.
        until: when its own turn would be.

    Returns:
        False where there is none, or where the lease was lost, since somebody else decides then; the transaction is the
        caller's to undo.
    """
    same = OutboxMessage.email_key == row.email_key, OutboxMessage.kind == row.kind
    soon = or_(OutboxMessage.attempts == 0, OutboxMessage.run_after <= until)
    waiting = OutboxMessage.id < row.id, OutboxMessage.run_after.is_not(None), OutboxMessage.leased.is_(False), soon
    older = select(OutboxMessage.id).where(*same, *waiting).order_by(OutboxMessage.id).limit(1).scalar_subquery()
    stands = update(OutboxMessage).where(OutboxMessage.id == older, *waiting).values(created_at=row.created_at)
    if not db.session.execute(stands).rowcount or not _delete(_leased_as(row), Counted.MERGED):  # type: ignore[attr-defined]
        return False
    db.session.commit()
    return True


def retry() -> int:
    """Make every row that failed for good due again, as if asked for now, and return how many."""
    now = utcnow()
    fresh = {"run_after": now, "leased": False, "created_at": now, "attempts": 0, "failed_at": None, "failure": None}
    found = db.session.execute(update(OutboxMessage).where(OutboxMessage.run_after.is_(None)).values(fresh))
    db.session.commit()
    return int(found.rowcount)  # type: ignore[attr-defined]


def purge_failed(age: timedelta) -> None:
    """Delete rows that failed for good longer ago than `age`."""
    _delete(OutboxMessage.failed_at < utcnow() - age, Counted.PURGED)


def _delete(which: ColumnElement[bool], outcome: Counted) -> int:
    kinds = db.session.scalars(delete(OutboxMessage).where(which).returning(OutboxMessage.kind)).all()
    for kind, number in sorted(Tally(kinds).items()):  # in one order, or two transactions could wait for each other
        counters.add(outcome, kind, number)
    return len(kinds)


def _leased_as(row: OutboxMessage) -> ColumnElement[bool]:
    return and_(OutboxMessage.id == row.id, OutboxMessage.run_after == row.run_after)


def _reschedule(row: OutboxMessage, outcome: Counted | None = None, **values: Any) -> bool:
    # Only under this worker's own lease: a worker that froze past it must not undo what the next one did, so the whole
    # transaction, with the events in it, stands or falls with the lease.
    mine = update(OutboxMessage).where(_leased_as(row)).values(leased=False, **values)
    found = db.session.execute(mine).rowcount  # type: ignore[attr-defined]
    if found and outcome:
        counters.add(outcome, row.kind)
    db.session.commit() if found else db.session.rollback()
    return bool(found)
