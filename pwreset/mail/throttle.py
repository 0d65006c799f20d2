"""How much mail one account gets, whoever asks for it: one a minute, and five an hour of each kind.

Decides when an account has had enough, and what becomes of the row then. It runs in the worker, after the response, so
a limit tells nobody anything; and it loses nothing: one row waits for the next turn, the others merge into it.
"""

from datetime import datetime, timedelta

from sqlalchemy import select

from pwreset import accounts, events
from pwreset.accounts import Turn
from pwreset.client import Client
from pwreset.clock import utcnow
from pwreset.events import Kind
from pwreset.extensions import db
from pwreset.mail import outbox
from pwreset.models import OutboxMessage, SecurityEvent, User

INTERVAL, HOUR, HOURLY = timedelta(minutes=1), timedelta(hours=1), 5


def take_turn(user: User, asked: Kind) -> Turn | datetime:
    """Take the account's turn in the present transaction, or return from when on there is one again.

    Args:
        user: who would be mailed.
        asked: what for, `REQUESTED` or `REGISTERED`. The hour is counted for each, or a stranger who registers the
            address over and over would use up what its owner needs for a reset.
    """
    fifth = _fifth_newest(user, asked)
    if fifth is not None:
        return fifth + HOUR
    turn = accounts.take_turn(user, INTERVAL)
    if turn is None:
        db.session.refresh(user)
    return turn or (user.mailed_at or utcnow()) + INTERVAL


def merge_or_put_off(row: OutboxMessage, user_id: int, until: datetime) -> None:
    """Let an older row stand for this one, or let this one wait for the account's next turn."""
    events.record(Kind.MERGED, user_id, Client(row.client_address, row.user_agent))
    if not outbox.merge(row, until):
        db.session.rollback()
        outbox.put_off(row, until)


def _fifth_newest(user: User, asked: Kind) -> datetime | None:
    mailed = SecurityEvent.user_id == user.id, SecurityEvent.kind == asked
    now = utcnow()
    # Not what a clock that was ahead has written.
    within = SecurityEvent.created_at > now - HOUR, SecurityEvent.created_at < now + INTERVAL
    newest = select(SecurityEvent.created_at).where(*mailed, *within).order_by(SecurityEvent.created_at.desc())
    return db.session.scalar(newest.offset(HOURLY - 1).limit(1))
