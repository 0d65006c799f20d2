"""Counters of what happened, across all processes and restarts.

Each counter is a row, incremented in the transaction of the change that it counts: every process reports the same
numbers, and nothing that was rolled back is counted. A counter must not contain anything about a person.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import select

from pwreset.clock import utcnow
from pwreset.database import INSERT
from pwreset.extensions import db
from pwreset.models import Counter


class Counted(StrEnum):
    """The names of the counters, as stored."""

    DELIVERED = "delivered"
    NO_RECIPIENT = "unaddressed"  # no account, or none that may get email
    MERGED = "merged"
    EXPIRED = "expired"
    FAILED = "failed"
    PURGED = "purged"  # failed long ago, and deleted
    RETRIED = "retried"
    COMPLETED = "completed"
    LIMITED = "limited"
    WORKER_HEARTBEAT = "seen"


def add(name: Counted, kind: str, number: int = 1) -> None:
    """Increment a counter in the current transaction, as its last statement: the row stays locked until the commit.

    Args:
        name: what happened.
        kind: the kind of email, the endpoint or the like.
        number: how often.
    """
    now = utcnow()
    fresh = INSERT[db.engine.dialect.name](Counter).values(name=name, kind=kind, value=number, updated_at=now)
    incremented = {"value": Counter.value + number, "updated_at": now}
    db.session.execute(fresh.on_conflict_do_update(index_elements=["name", "kind"], set_=incremented))


def totals() -> dict[tuple[str, str], int]:
    """Return every counter that is not 0, by name and kind."""
    query = select(Counter.name, Counter.kind, Counter.value).order_by(Counter.name, Counter.kind)
    return {(name, kind): value for name, kind, value in db.session.execute(query)}


def last(name: Counted) -> datetime | None:
    """Return when a counter was last incremented."""
    query = select(Counter.updated_at).where(Counter.name == name).order_by(Counter.updated_at.desc()).limit(1)
    return db.session.scalar(query)
