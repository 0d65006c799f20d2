"""What can be done to an account, each as one transaction's worth of statements.

Decides that a password changes only by compare-and-set: `UPDATE ... WHERE stamp = :the one we judged by`. Of two who
judged by the same stamp one finds no row. (An operator's switch judges by nothing, and just sets.) Functions write to
the present transaction and leave the commit to the caller, but for `create`, whose conflict shows only at the commit,
and `authenticate`, whose try is counted whatever becomes of it.
It must not know HTTP or mail texts.
"""

import secrets
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from flask import current_app
from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.exc import IntegrityError

from pwreset import addresses
from pwreset.accounts import events, login_throttle
from pwreset.accounts.events import Kind
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage, User, new_security_stamp
from pwreset.passwords import check_password, make_password, password_needs_rehash
from pwreset.request_info import RequestInfo

UNFINISHED_LIFETIME = timedelta(days=7)


def find(address: str) -> User | None:
    """Return the account of an address, however it is spelled, or None."""
    return db.session.scalar(select(User).where(User.email_key == addresses.email_key(address)))


def find_by_id(user_id: int) -> User | None:
    """Return the account of an id, as the database has it now and not as this session remembers it, or None."""
    return db.session.get(User, user_id, populate_existing=True)


def create(address: str, password: str | None = None) -> User | None:
    """Add an account and commit; None, and nothing changed, where there is one already.

    Args:
        address: in the form of `addresses.normalize`.
        password: checked by the caller; None for an account that chooses one by a mailed link.
    """
    user = User(email=address, email_key=addresses.email_key(address), password_hash=make_password(password))
    db.session.add(user)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        return None
    return user


def set_password(user: User, password: str) -> bool:
    """Give an active account a new password, unless its credentials changed since `user` was loaded.

    Every session and outstanding link of the account dies with the old stamp. Whoever sets it is the owner, so the
    minute between two mails, which is against strangers, is over, and so is the wait after failed logins.

    Args:
        user: as it was when the caller judged it.
        password: already validated.

    Returns:
        False when another request was first; nothing is changed then.
    """
    done = _compare_and_set(
        user, password_hash=make_password(password), security_stamp=new_security_stamp(), cooldown_started_at=None
    )
    if done:
        login_throttle.clear_account(user.email)
    return done


def revoke_sessions(user: User) -> bool:
    """End every session and outstanding link of an account; False when another request was first, and ended them.

    What was mailed until now is useless, so the owner's next mail need not wait for it.
    """
    return _compare_and_set(user, security_stamp=new_security_stamp(), cooldown_started_at=None)


def revoke(user: User, *, password: bool = False) -> None:
    """End every session and outstanding link of an account, whatever changed since `user` was loaded.

    Args:
        user: whose.
        password: end the password too. In its place comes one that nobody knows; Django's unusable marker would say
            that the account was never finished.
    """
    values: dict[str, Any] = {"security_stamp": new_security_stamp(), "cooldown_started_at": None}
    if password:
        values["password_hash"] = make_password(secrets.token_urlsafe(32))
        login_throttle.clear_account(user.email)
    db.session.execute(update(User).where(User.id == user.id, User.is_active).values(**values))


def set_active(user: User, *, active: bool) -> None:
    """Switch an account on or off. Either way it gets a new stamp, so that coming back revives no session."""
    db.session.execute(
        update(User).where(User.id == user.id).values(is_active=active, security_stamp=new_security_stamp())
    )
    events.record(Kind.ACTIVATED if active else Kind.DEACTIVATED, user.id)


def authenticate(address: str, password: str, client: RequestInfo) -> User | None:
    """Return the account if the password is right and the login is recorded, else None.

    One hash is computed whether or not the account exists. Recording is a compare-and-set on the stamp, and a
    re-hash one on the hash too: otherwise a login racing a reset could write the old password back.

    Raises:
        login_throttle.LoginThrottled: too many logins failed from this network; the password is not looked at.
    """
    failures = login_throttle.count_attempt(address, client.address)
    user = find(address)
    usable = user is not None and user.is_active
    right = check_password(password, user.password_hash if user and usable else None)
    if user and right and _record_login(user, password):
        login_throttle.clear_network(address, client.address)
        events.record(Kind.LOGGED_IN, user.id, client)
        return user
    events.record(Kind.LOGIN_FAILED, user.id if user else None, client)
    if login_throttle.is_throttled(failures):
        events.record(Kind.LIMITED, user.id if user else None, client)
    return None


def record_login(user: User) -> bool:
    """Note that an account logged in without typing its password; False when its credentials just changed."""
    return _compare_and_set(user, last_login=utcnow())


class Slot(NamedTuple):
    """An account's turn to be mailed: whose, since when, and when it was mailed before."""

    user_id: int
    taken_at: datetime
    before: datetime | None


def claim_slot(user: User, interval: timedelta) -> Slot | None:
    """Take the account's turn to be mailed; None if a mail was sent or is under way within `interval`."""
    turn = Slot(user.id, utcnow(), user.cooldown_started_at)
    # One that was mailed in the future was mailed before the clock was set back.
    past, future = (
        User.cooldown_started_at <= turn.taken_at - interval,
        User.cooldown_started_at > turn.taken_at + interval,
    )
    free = User.cooldown_started_at.is_(None) | past | future
    found = db.session.execute(update(User).where(User.id == user.id, free).values(cooldown_started_at=turn.taken_at))
    return turn if found.rowcount else None  # type: ignore[attr-defined]


def release_slot(turn: Slot) -> None:
    """Give a turn back that came to nothing, unless somebody else has taken it since."""
    mine = User.id == turn.user_id, User.cooldown_started_at == turn.taken_at
    db.session.execute(update(User).where(*mine).values(cooldown_started_at=turn.before))


def purge_unfinished() -> int:
    """Delete accounts that never chose a password within 7 days and hold or await no link, and return how many.

    A deactivated one stays: asking again must not bring it back.
    """
    never_finished = User.password_hash.startswith("!"), User.last_login.is_(None), User.is_active
    now, longest = utcnow(), max(current_app.config["INVITE_TIMEOUT"], current_app.config["PASSWORD_RESET_TIMEOUT"])
    linkless = (User.cooldown_started_at.is_(None)) | (
        User.cooldown_started_at < now - timedelta(seconds=longest) - timedelta(hours=1)
    )
    awaited = select(OutboxMessage.id).where(OutboxMessage.email_key == User.email_key).exists()
    old = and_(User.created_at < now - UNFINISHED_LIFETIME, linkless, ~awaited)
    return db.session.execute(delete(User).where(*never_finished, old)).rowcount  # type: ignore[attr-defined,no-any-return]


def _record_login(user: User, password: str) -> bool:
    now = utcnow()
    if password_needs_rehash(user.password_hash):
        same_hash, fresh = User.password_hash == user.password_hash, make_password(password)
        if _compare_and_set(user, same_hash, last_login=now, password_hash=fresh):
            return True  # where another login re-hashed it first, this one is still right
    return _compare_and_set(user, last_login=now)


def _compare_and_set(user: User, *also: ColumnElement[bool], **values: Any) -> bool:
    unchanged = User.security_stamp == user.security_stamp, User.is_active
    found = db.session.execute(update(User).where(User.id == user.id, *unchanged, *also).values(**values))
    return bool(found.rowcount)  # type: ignore[attr-defined]
