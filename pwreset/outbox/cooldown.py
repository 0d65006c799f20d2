"""The per-account cooldown: one email per EMAIL_INTERVAL, and EMAIL_HOURLY of each kind an hour, for all visitors.

An account has one slot. An attempt claims it before it writes an email that strangers can request, and releases it if
nothing was sent. This runs in the worker, after the response, so a limit reveals nothing to the visitor.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from flask import current_app
from sqlalchemy import func, select, update

from pwreset.accounts.events import END_LINKS
from pwreset.accounts.tokens import token_generator
from pwreset.clock import CLOCK_TOLERANCE, utcnow
from pwreset.extensions import db
from pwreset.models import SecurityEvent, User
from pwreset.outbox.kinds import EmailKind

HOUR = timedelta(hours=1)


class Slot(NamedTuple):
    """A claimed slot: the account, when it was claimed, and the start of the cooldown before it."""

    user_id: int
    claimed_at: datetime
    previous: datetime | None


def claim(user: User, kind: EmailKind) -> Slot | datetime:
    """Claim the account's slot and commit, or return when the next one is free.

    The hour is counted for each kind: otherwise a stranger who registers an address again and again would use up what
    its owner needs for a reset.
    """
    start_of_hour = _start_of_full_hour(user, kind)
    if start_of_hour is not None:
        return start_of_hour + _window(kind)
    interval = timedelta(seconds=current_app.config["EMAIL_INTERVAL"])
    slot = _claim(user, interval)
    db.session.commit()  # writing an email takes time, and SQLite has one lock for all writers
    return slot or (user.cooldown_started_at or utcnow()) + interval


def start(user: User) -> None:
    """Start the account's cooldown in the current transaction, as if an email had been sent."""
    _claim(user, timedelta())


def release(slot: Slot) -> None:
    """Release a slot in the current transaction, unless another attempt has claimed it since."""
    mine = User.id == slot.user_id, User.cooldown_started_at == slot.claimed_at
    db.session.execute(update(User).where(*mine).values(cooldown_started_at=slot.previous))


def _claim(user: User, interval: timedelta) -> Slot | None:
    slot = Slot(user.id, utcnow(), user.cooldown_started_at)
    started = User.cooldown_started_at
    # A cooldown that starts in the future was claimed before the clock was set back.
    free = started.is_(None) | (started <= slot.claimed_at - interval) | (started > slot.claimed_at + interval)
    claimed = update(User).where(User.id == user.id, free).values(cooldown_started_at=slot.claimed_at)
    found = db.session.execute(claimed)
    return slot if found.rowcount else None  # type: ignore[attr-defined]


def _window(kind: EmailKind) -> timedelta:
    # An email counts while its link is valid, and at most for an hour. Otherwise an owner whose short-lived links have
    # expired could not get a new one.
    return min(HOUR, timedelta(seconds=token_generator(kind.purpose or "reset").lifetime))


def _start_of_full_hour(user: User, kind: EmailKind) -> datetime | None:
    """Return when the oldest of the hour's emails was sent, if there were EMAIL_HOURLY of them."""
    now = utcnow()
    mine = SecurityEvent.user_id == user.id
    # Events further in the future were written before the clock was set back.
    recent = (SecurityEvent.created_at > now - _window(kind)) & (SecurityEvent.created_at < now + CLOCK_TOLERANCE)
    # Only emails whose links may still be valid: a stranger's requests must not delay an owner who revoked their links.
    ended = select(func.max(SecurityEvent.id)).where(mine, SecurityEvent.kind.in_(END_LINKS)).scalar_subquery()
    usable = SecurityEvent.id > func.coalesce(ended, 0)
    sent = select(SecurityEvent.created_at).where(mine, SecurityEvent.kind == kind.event, recent, usable)
    newest_first = sent.order_by(SecurityEvent.created_at.desc())
    return db.session.scalar(newest_first.offset(current_app.config["EMAIL_HOURLY"] - 1).limit(1))
