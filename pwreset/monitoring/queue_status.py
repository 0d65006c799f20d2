"""What the outbox and the counters say together: for `/metrics`, `/healthz` and `flask outbox status`.

Decides how the numbers are reckoned, all of them from the database, so that every process answers alike. It must not
write, and names no address.
"""

from collections import Counter as Tally
from datetime import datetime, timedelta

from flask import current_app
from sqlalchemy import ColumnElement, func, select, union_all

from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import Counter, OutboxMessage
from pwreset.monitoring import counters
from pwreset.monitoring.counters import Counted

# What takes a row out of the outbox for good. A mail that failed stays in it until it is purged or sent again.
ENDS = frozenset({Counted.DELIVERED, Counted.NO_RECIPIENT, Counted.MERGED, Counted.EXPIRED, Counted.PURGED})
UNSEEN, CLOCKS_DIFFER = timedelta(minutes=1), timedelta(minutes=2)
STALLED_MESSAGE = (
    "Mail has been due for more than a minute, and no worker takes it. "
    "Serve with gunicorn.conf.py, or run `flask outbox run` or Celery beside this server."
)


def counts() -> dict[str, int]:
    """Return how many rows are due, wait for a later time, and failed for good."""
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
    """Return the rows that failed for good, newest first."""
    newest = select(OutboxMessage).where(OutboxMessage.run_after.is_(None)).order_by(OutboxMessage.failed_at.desc())
    return list(db.session.scalars(newest.limit(limit)))


def requests() -> dict[str, int]:
    """Return how often each kind of mail was ever asked for: what is in the outbox, and what left it.

    Reckoned, so that the request itself counts nothing: it adds one row for every address, and does no more. In one
    statement: a mail that left between two would be reckoned in both, and the number would go down again.
    """
    present = select(OutboxMessage.kind, func.count().label("number")).group_by(OutboxMessage.kind)
    left = select(Counter.kind, Counter.value).where(Counter.name.in_(ENDS))
    asked: Tally[str] = Tally()
    for kind, number in db.session.execute(union_all(present, left)):
        asked[kind] += number
    return dict(sorted(asked.items()))


def is_stalled() -> bool:
    """Whether mail has been due for a minute, and for as long no worker has taken any."""
    long_ago = utcnow() - max(UNSEEN, timedelta(seconds=current_app.config["EMAIL_DEADLINE"] + 15))
    oldest = oldest_due()
    if oldest is None or oldest > long_ago:
        return False
    seen = counters.last(Counted.WORKER_HEARTBEAT)
    # One from the future was seen by a clock that was ahead.
    return seen is None or not long_ago <= seen <= utcnow() + CLOCKS_DIFFER
