"""How much mail one account gets, whoever asks for it: one in EMAIL_INTERVAL, and EMAIL_HOURLY an hour of each kind.

Decides when an account has had enough, and what becomes of the row then. It runs in the worker, after the response, so
a limit tells nobody anything; and it loses nothing: one row waits for the next turn, the others merge into it.
"""

from datetime import datetime, timedelta

from flask import current_app
from sqlalchemy import func, select

from pwreset import accounts, outbox
from pwreset.accounts import Slot, events
from pwreset.accounts.events import END_LINKS, Kind
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage, SecurityEvent, User
from pwreset.request_info import RequestInfo

HOUR = timedelta(hours=1)
CLOCKS_DIFFER = timedelta(minutes=1)  # between two machines, and nobody's clock was set


def claim_slot(user: User, asked: Kind) -> Slot | datetime:
    """Take the account's turn in the present transaction, or return from when on there is one again.

    Args:
        user: who would be mailed.
        asked: what for, `REQUESTED` or `REGISTERED`. The hour is counted for each, or a stranger who registers the
            address over and over would use up what its owner needs for a reset.
    """
    last_of_the_hour = _last_of_the_hour(user, asked)
    if last_of_the_hour is not None:
        return last_of_the_hour + _window(asked)
    interval = timedelta(seconds=current_app.config["EMAIL_INTERVAL"])
    turn = accounts.claim_slot(user, interval)
    if turn is None:
        db.session.refresh(user)
    return turn or (user.cooldown_started_at or utcnow()) + interval


def merge_or_put_off(row: OutboxMessage, user_id: int, until: datetime) -> None:
    """Let an older row stand for this one, or let this one wait for the account's next turn."""
    events.record(Kind.MERGED, user_id, RequestInfo(row.client_address, row.user_agent))
    if not outbox.merge(row, until):
        db.session.rollback()
        outbox.put_off(row, until)


def _window(asked: Kind) -> timedelta:
    # Links that have died of age need not be waited for: with shorter lives than an hour no owner could reset.
    lifetime = current_app.config["PASSWORD_RESET_TIMEOUT" if asked is Kind.REQUESTED else "INVITE_TIMEOUT"]
    return min(HOUR, timedelta(seconds=lifetime))


def _last_of_the_hour(user: User, asked: Kind) -> datetime | None:
    """Return when the oldest of the hour's mails was sent, if there were as many as an hour has."""
    mailed = SecurityEvent.user_id == user.id, SecurityEvent.kind == asked
    now = utcnow()
    # Not what a clock that was ahead has written.
    within = SecurityEvent.created_at > now - _window(asked), SecurityEvent.created_at < now + CLOCKS_DIFFER
    # Only mails whose links may be alive: a stranger's five must not keep an owner who has ended them from a new one.
    ended = select(func.max(SecurityEvent.id)).where(
        SecurityEvent.user_id == user.id, SecurityEvent.kind.in_(END_LINKS)
    )
    alive = SecurityEvent.id > func.coalesce(ended.scalar_subquery(), 0)
    newest = select(SecurityEvent.created_at).where(*mailed, *within, alive).order_by(SecurityEvent.created_at.desc())
    return db.session.scalar(newest.offset(current_app.config["EMAIL_HOURLY"] - 1).limit(1))
