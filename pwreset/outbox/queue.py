"""The rows of emails waiting to be sent; the only module that writes them.

`enqueue` and `purge_failed` write to the caller's transaction. The other functions that write commit at once, so that
no transaction stays open while an email is sent. Only `settle` commits the outcome of an attempt.
This module must not look up accounts or render anything.
"""

from collections import Counter as Tally
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from flask import current_app
from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from pwreset.accounts import events
from pwreset.accounts.events import Kind
from pwreset.addresses import email_key
from pwreset.clock import CLOCK_TOLERANCE, utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage
from pwreset.monitoring import counters
from pwreset.monitoring.counters import Counted
from pwreset.outbox import cooldown
from pwreset.outbox.cooldown import Slot
from pwreset.outbox.kinds import EmailKind
from pwreset.outbox.outcomes import EFFECTS, LONGEST_RETRY, Effect, Outcome, Result
from pwreset.request_info import RequestInfo


def enqueue(kind: EmailKind, address: str, request_info: RequestInfo, options: dict[str, Any] | None = None) -> None:
    """Add a row to the current transaction; a worker writes and sends the email later.

    Args:
        kind: the kind of email.
        address: in the form of `addresses.normalize`; whether it has an account is not looked up here.
        request_info: where the request came from.
        options: template names and context for the email (JSON values).
    """
    row = OutboxMessage(
        kind=kind,
        address=address,
        email_key=email_key(address),
        client_address=request_info.address,
        user_agent=request_info.user_agent,
        language=request_info.language,
        origin=request_info.origin,
        options=options or {},
    )
    db.session.add(row)
    db.session.flush()


def claim() -> OutboxMessage | None:
    """Lease the oldest due row for OUTBOX_LEASE_SECONDS and commit, or return None.

    One statement chooses and leases the row: a SELECT followed by an UPDATE gave one row to two workers. The row is
    returned detached, with the values it has under the lease.
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


def settle(row: OutboxMessage, outcome: Outcome, slot: Slot | None = None) -> Outcome | None:
    """Write the outcome of an attempt, and commit once: the row, the counter, the event and the slot.

    Args:
        row: as `claim` returned it.
        outcome: of the attempt.
        slot: the cooldown slot that the attempt claimed.

    Returns:
        The outcome that was written, which is the fallback if the row had changed so that `outcome` did not apply. None
        if the lease was lost: then nothing is written, because another worker has the row.
    """
    effect = EFFECTS[outcome.result]
    changed = _change(row, outcome, effect)
    if effect.needs_lease and not changed:
        db.session.rollback()
        return settle(row, replace(outcome, result=effect.fallback), slot) if effect.fallback else None
    _record(row, outcome, effect)
    if slot and not effect.keeps_slot:
        cooldown.release(slot)
    if changed and effect.counter:
        counters.add(effect.counter, row.kind)  # last: its row stays locked until the commit
    db.session.commit()
    return outcome


def exists(row: OutboxMessage) -> bool:
    """Whether a row is still in the outbox."""
    return db.session.scalar(select(OutboxMessage.id).where(OutboxMessage.id == row.id)) is not None


def repair_future_dates() -> int:
    """Make rows due that were scheduled before the clock was set back, commit, and return how many there were.

    These are rows that were created in the future, or wait longer than any retry, lease or cooldown. They count as
    requested now, so that they expire no later than others.
    """
    now = utcnow()
    longest = LONGEST_RETRY + timedelta(seconds=current_app.config["OUTBOX_LEASE_SECONDS"]) + CLOCK_TOLERANCE
    is_new = and_(OutboxMessage.attempts == 0, OutboxMessage.leased.is_(False))
    created_in_future = and_(is_new, OutboxMessage.created_at > now + CLOCK_TOLERANCE)
    waits_too_long = OutboxMessage.run_after > now + longest
    wrong = and_(OutboxMessage.run_after > now + CLOCK_TOLERANCE, or_(waits_too_long, created_in_future))
    return _update_all(wrong, run_after=now, created_at=now)


def retry_failed() -> int:
    """Make every failed row due again, as if requested now, commit, and return how many there were."""
    now = utcnow()
    as_new: dict[str, Any] = {"run_after": now, "created_at": now, "attempts": 0, "failed_at": None, "failure": None}
    return _update_all(OutboxMessage.run_after.is_(None), **as_new)


def purge_failed(age: timedelta) -> None:
    """Delete rows that failed longer ago than `age`, in the current transaction."""
    old = delete(OutboxMessage).where(OutboxMessage.failed_at < utcnow() - age).returning(OutboxMessage.kind)
    for kind, number in sorted(Tally(db.session.scalars(old)).items()):  # sorted, so that two purges can't deadlock
        counters.add(Counted.PURGED, kind, number)


def _change(row: OutboxMessage, outcome: Outcome, effect: Effect) -> bool:
    """Delete or update the row, and return whether it was there to change."""
    conditions = [OutboxMessage.id == row.id]
    if effect.needs_lease:
        conditions.append(OutboxMessage.run_after == row.run_after)
    if outcome.result is Result.EXPIRED:
        conditions.append(OutboxMessage.created_at < outcome.created_before)
    if outcome.result is Result.MERGED and not _merge_into_older(row, outcome.until):
        return False
    if effect.new_values is None:
        found = db.session.execute(delete(OutboxMessage).where(*conditions))
    else:
        values = effect.new_values(row, outcome)
        found = db.session.execute(update(OutboxMessage).where(*conditions).values(leased=False, **values))
    return bool(found.rowcount)  # type: ignore[attr-defined]


def _record(row: OutboxMessage, outcome: Outcome, effect: Effect) -> None:
    if effect.event is Kind.EMAIL_SENT:
        requested = EmailKind(row.kind).event
        if requested and outcome.user_id:
            events.record(requested, outcome.user_id, RequestInfo(row.client_address, row.user_agent))
            events.record(Kind.EMAIL_SENT, outcome.user_id)
    elif effect.event:
        info = RequestInfo(row.client_address, row.user_agent) if effect.event is Kind.MERGED else None
        events.record(effect.event, outcome.user_id, info)


def _merge_into_older(row: OutboxMessage, until: datetime | None) -> bool:
    """Merge a row into an older one for the same email to the same address, and return whether there is one.

    The older row always stays, so that two workers can't merge each row into the other. It gets the time of the newer
    request, so that it does not expire too early. A row is not merged into one that waits longer after a failure, or
    into a leased one, whose email may already be written with a link that is no longer valid.
    """
    soon = or_(OutboxMessage.attempts == 0, OutboxMessage.run_after <= until)
    is_waiting = and_(OutboxMessage.run_after.is_not(None), OutboxMessage.leased.is_(False), soon)
    same = and_(OutboxMessage.email_key == row.email_key, OutboxMessage.kind == row.kind)
    candidates = select(OutboxMessage.id).where(same, OutboxMessage.id < row.id, is_waiting)
    older = candidates.order_by(OutboxMessage.id).limit(1).scalar_subquery()
    found = update(OutboxMessage).where(OutboxMessage.id == older, is_waiting).values(created_at=row.created_at)
    return bool(db.session.execute(found).rowcount)  # type: ignore[attr-defined]


def _update_all(which: ColumnElement[bool], **values: Any) -> int:
    found = db.session.execute(update(OutboxMessage).where(which).values(leased=False, **values))
    db.session.commit()
    return int(found.rowcount)  # type: ignore[attr-defined]
