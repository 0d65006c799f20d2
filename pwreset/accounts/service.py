"""The changes of an account, each in as few statements as possible.

A password changes by compare-and-set only: `UPDATE ... WHERE stamp = :the_stamp_that_was_checked`. Of two requests that
checked the same stamp, one finds no row. Functions write to the current transaction and leave the commit to the caller,
except `create`, which must commit to find a conflict, and `authenticate`, which commits the attempt in any case.
This module must not know HTTP, or the texts of emails.
"""

import secrets
from datetime import timedelta
from typing import Any

from flask import current_app
from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.exc import IntegrityError

from pwreset import addresses
from pwreset.accounts import events, login_throttle
from pwreset.accounts.events import Kind
from pwreset.clock import utcnow
from pwreset.extensions import db
from pwreset.models import OutboxMessage, User
from pwreset.passwords.hashing import check_password, make_password, password_needs_rehash
from pwreset.request_info import RequestInfo

UNFINISHED_LIFETIME = timedelta(days=7)


def new_security_stamp() -> str:
    """Return a random value of 192 bits for `User.security_stamp`."""
    return secrets.token_urlsafe(24)


def find(address: str) -> User | None:
    """Return the account of an address in any spelling, or None."""
    return db.session.scalar(select(User).where(User.email_key == addresses.email_key(address)))


def find_by_id(user_id: int) -> User | None:
    """Return the account of an id, read from the database again, or None."""
    return db.session.get(User, user_id, populate_existing=True)


def create(address: str, password: str | None = None, *, registered: bool = False) -> User | None:
    """Add an account and commit. Return None, and change nothing, if the address has an account.

    Args:
        address: in the form of `addresses.normalize`.
        password: validated by the caller; None for an account whose owner chooses one through an emailed link.
        registered: whether a registration creates it; then it is purged if nobody finishes it.
    """
    now = utcnow()
    user = User(
        email=address,
        email_key=addresses.email_key(address),
        password_hash=make_password(password),
        security_stamp=new_security_stamp(),
        created_at=now,
        registered_at=now if registered else None,
    )
    db.session.add(user)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        return None
    return user


def set_password(user: User, password: str) -> bool:
    """Give an active account a new password, unless its credentials changed since `user` was loaded.

    The new stamp ends every session and outstanding link. The cooldown and the login throttle end too: they limit
    strangers, and only the owner can set a password.

    Args:
        user: the account as it was when the caller checked it.
        password: already validated.

    Returns:
        False if another request was first; then nothing has changed.
    """
    changed = _compare_and_set(
        user, password_hash=make_password(password), security_stamp=new_security_stamp(), cooldown_started_at=None
    )
    if changed:
        login_throttle.clear_account(user.email)
    return changed


def revoke_sessions(user: User) -> bool:
    """End every session and outstanding link; return False if another request has already ended them.

    The links emailed until now no longer work, so the cooldown ends and the owner can get a new one at once.
    """
    return _compare_and_set(user, security_stamp=new_security_stamp(), cooldown_started_at=None)


def revoke(user: User, *, password: bool = False) -> None:
    """End every session and outstanding link of an active account, even if it changed since `user` was loaded.

    Args:
        user: the account.
        password: whether to replace the password with a random one. (Django's unusable marker would mean that the
            registration was never finished.)
    """
    values: dict[str, Any] = {"security_stamp": new_security_stamp(), "cooldown_started_at": None}
    if password:
        values["password_hash"] = make_password(secrets.token_urlsafe(32))
    db.session.execute(update(User).where(User.id == user.id, User.is_active).values(**values))
    if password:
        login_throttle.clear_account(user.email)  # after the account, in the same order as a login, to avoid deadlocks


def set_active(user: User, *, active: bool) -> None:
    """Activate or deactivate an account. In both cases it gets a new stamp, so that old sessions stay invalid."""
    values = {"is_active": active, "security_stamp": new_security_stamp()}
    db.session.execute(update(User).where(User.id == user.id).values(**values))
    events.record(Kind.ACTIVATED if active else Kind.DEACTIVATED, user.id)


def authenticate(address: str, password: str, request_info: RequestInfo) -> User | None:
    """Return the account if the password is right and the login was recorded, else None.

    One hash is computed whether or not the account exists. Recording a login is a compare-and-set on the stamp, and
    re-hashing compares the hash too: otherwise a login that races a reset could write the old password back.

    Raises:
        login_throttle.LoginThrottled: too many logins failed from this network; the password was not checked.
    """
    failures = login_throttle.count_attempt(address, request_info.address)
    user = find(address)
    usable = user is not None and user.is_active
    correct = check_password(password, user.password_hash if user and usable else None)
    if user and correct and _record_login(user, password):
        login_throttle.clear_network(address, request_info.address)
        events.record(Kind.LOGGED_IN, user.id, request_info)
        return user
    user_id = user.id if user else None
    events.record(Kind.LOGIN_FAILED, user_id, request_info)
    if login_throttle.is_throttled(failures):
        events.record(Kind.LIMITED, user_id, request_info)
    return None


def record_login(user: User) -> bool:
    """Record a login that checked no password; return False if the account's credentials just changed."""
    return _compare_and_set(user, last_login=utcnow())


def purge_unfinished() -> int:
    """Delete accounts that registered and have no password after 7 days, unless a link is valid or waits to be sent.

    An account that no registration created stays, because an operator or an import created it. A deactivated account
    stays, so that a new registration can't create it again.

    Returns:
        How many were deleted.
    """
    unfinished = and_(User.password_hash.startswith("!"), User.last_login.is_(None), User.is_active)
    link_lifetime = max(current_app.config["INVITE_TIMEOUT"], current_app.config["PASSWORD_RESET_TIMEOUT"])
    last_email_with_link = utcnow() - timedelta(seconds=link_lifetime) - timedelta(hours=1)
    linkless = User.cooldown_started_at.is_(None) | (User.cooldown_started_at < last_email_with_link)
    awaited = select(OutboxMessage.id).where(OutboxMessage.email_key == User.email_key).exists()
    old = and_(User.registered_at < utcnow() - UNFINISHED_LIFETIME, linkless, ~awaited)
    return db.session.execute(delete(User).where(unfinished, old)).rowcount  # type: ignore[attr-defined,no-any-return]


def _record_login(user: User, password: str) -> bool:
    now = utcnow()
    if password_needs_rehash(user.password_hash):
        same_hash = User.password_hash == user.password_hash
        if _compare_and_set(user, same_hash, last_login=now, password_hash=make_password(password)):
            return True  # if another login re-hashed it first, this login is still valid
    return _compare_and_set(user, last_login=now)


def _compare_and_set(user: User, *also: ColumnElement[bool], **values: Any) -> bool:
    unchanged = User.security_stamp == user.security_stamp, User.is_active
    found = db.session.execute(update(User).where(User.id == user.id, *unchanged, *also).values(**values))
    return bool(found.rowcount)  # type: ignore[attr-defined]
