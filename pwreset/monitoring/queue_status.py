"""The state of the queue, for `/metrics`, `/healthz` and `flask outbox status`.

Every number is computed from the database, so that every process gives the same answer. This module must not write, and
returns no address.
"""

from collections import Counter as Tally
from datetime import datetime, timedelta

from flask import current_app
from sqlalchemy import ColumnElement, func, select, union_all

from pwreset.clock import CLOCK_TOLERANCE, utcnow
from pwreset.extensions import db
from pwreset.models import Counter, OutboxMessage
from pwreset.monitoring import counters
from pwreset.monitoring.counters import Counted

# The counters of rows that left the outbox. A failed row stays until it is purged or sent again.
LEFT_OUTBOX = frozenset({Counted.DELIVERED, Counted.NO_RECIPIENT, Counted.MERGED, Counted.EXPIRED, Counted.PURGED})
STALLED_AFTER = timedelta(minutes=1)
STALLED_MESSAGE = (
    "Email has been due for more than a minute, and no worker delivers it. "
    "Serve with gunicorn.conf.py, or run `flask outbox run` or Celery beside this server."
)


def counts() -> dict[str, int]:
    """Return how many rows are due, wait for a later time, and failed."""
    now = utcnow()
    states: dict[str, ColumnElement[bool]] = {
        "due": OutboxMessage.run_after <= now,
        "waiting": OutboxMessage.run_after > now,
        "failed": OutboxMessage.run_after.is_(None),
    }
    query = select(*(func.count().filter(condition).label(name) for name, condition in states.items()))
    return dict(db.session.execute(query.select_from(OutboxMessage)).one()._mapping)  # noqa: SLF001 (public name)


def oldest_due() -> datetime | None:
    """Return since when the oldest due row has been due."""
    return db.session.scalar(select(func.min(OutboxMessage.run_after)).where(OutboxMessage.run_after <= utcnow()))


def failed(limit: int = 20) -> list[OutboxMessage]:
    """Return the failed rows, newest first."""
    newest = select(OutboxMessage).where(OutboxMessage.run_after.is_(None)).order_by(OutboxMessage.failed_at.desc())
    return list(db.session.scalars(newest.limit(limit)))


def requests() -> dict[str, int]:
    """Return how often each kind of email was ever requested: the rows in the outbox, and those that left it.

    The number is computed, so that a request does not update a counter: it adds one row for every address, and does
    nothing else. One statement reads both numbers: a row that leaves between two statements would count twice, and the
    number would go down later.
    """
    present = select(OutboxMessage.kind, func.count().label("number")).group_by(OutboxMessage.kind)
    left = select(Counter.kind, Counter.value).where(Counter.name.in_(LEFT_OUTBOX))
    requested: Tally[str] = Tally()
    for kind, number in db.session.execute(union_all(present, left)):
        requested[kind] += number
    return dict(sorted(requested.items()))


def is_stalled() -> bool:
    """Whether rows have been due for a minute, and no worker has recorded a heartbeat since."""
    # A worker records no heartbeat while it sends one email, which takes up to EMAIL_DEADLINE.
    limit = utcnow() - max(STALLED_AFTER, timedelta(seconds=current_app.config["EMAIL_DEADLINE"] + 15))
    oldest = oldest_due()
    if oldest is None or oldest > limit:
        return False
    heartbeat = counters.last(Counted.WORKER_HEARTBEAT)
    # A heartbeat further in the future was recorded before the clock was set back.
    return heartbeat is None or not limit <= heartbeat <= utcnow() + CLOCK_TOLERANCE
