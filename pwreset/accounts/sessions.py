"""Decides who is logged in.

A session is valid for one security stamp of its account, until it is logged out or too old. A cookie can't be deleted
from a thief's browser, so the ids of sessions that were logged out are stored. A session's age isn't the age of its
signature, because Flask signs the cookie again at each request: the session contains when it started and when it was
last used. "Remember me" makes Flask's session permanent. Flask-Login's own remember cookie is switched off, because it
doesn't support SECRET_KEY_FALLBACKS.
"""

import secrets
from datetime import timedelta
from secrets import compare_digest

from flask import current_app, session
from flask_login import LoginManager, login_user
from sqlalchemy import delete

from pwreset import accounts
from pwreset.clock import utcnow
from pwreset.database import INSERT
from pwreset.extensions import db
from pwreset.models import RevokedSession, User

SESSION_ID = "_session_id"
STARTED_AT = "_began_at"  # the key that running sessions contain
SEEN_AT = "_seen_at"
SEEN_AT_PRECISION = 60  # seconds


def init_app(login_manager: LoginManager) -> None:
    """Configure Flask-Login."""
    login_manager.user_loader(load_user)
    login_manager.login_view = "users.login"
    login_manager.login_message = None
    login_manager.session_protection = None  # it logs people out when their network changes
    # No setting switches the remember cookie off.
    login_manager._load_user_from_remember_cookie = lambda _cookie: None  # noqa: SLF001


def load_user(session_id: str) -> User | None:
    """Return the account of a session; None if it was logged out, is too old, or has no active account with its stamp.

    Args:
        session_id: what `User.get_id` returned at the login.
    """
    now = int(utcnow().timestamp())
    seen_at = session.get(SEEN_AT, 0)
    if _is_too_old(now) or db.session.get(RevokedSession, session.get(SESSION_ID, "")) is not None:
        return None
    user = _account_of(session_id)
    if user is not None and session.permanent and now - seen_at > SEEN_AT_PRECISION:
        session[SEEN_AT] = now
    return user


def sign_in(session_id: str, *, remember: bool) -> None:
    """Start a new session, after logging out the one that this browser had.

    Args:
        session_id: what `User.get_id` returned before the commit. Read after it, the stamp could be that of a reset in
            between, and the session would survive the reset. With the older stamp no session starts.
        remember: whether the session outlives the browser.
    """
    sign_out()
    user = _account_of(session_id)
    if user is not None:
        login_user(user)
        session[SESSION_ID] = secrets.token_urlsafe(18)
        session[STARTED_AT] = session[SEEN_AT] = int(utcnow().timestamp())
        session.permanent = remember


def sign_out() -> None:
    """Revoke this session and every copy of its cookie, and commit."""
    if SESSION_ID in session:
        revoked = INSERT[db.engine.dialect.name](RevokedSession).values(id=session[SESSION_ID], revoked_at=utcnow())
        db.session.execute(revoked.on_conflict_do_nothing())  # the browser may send two requests at once
        db.session.commit()
    session.clear()


def purge_revoked() -> None:
    """Delete the revoked sessions whose cookies have expired. The caller commits."""
    longest = timedelta(days=current_app.config["SESSION_LIFETIME_DAYS"] + 1)
    db.session.execute(delete(RevokedSession).where(RevokedSession.revoked_at < utcnow() - longest))


def _is_too_old(now: int) -> bool:
    """Whether a session was unused for too long, or has reached its maximum age (ASVS 5.0, 7.3.2)."""
    limits = {SEEN_AT: "SESSION_LIFETIME_DAYS", STARTED_AT: "SESSION_MAXIMUM_DAYS"}
    return any(now - session.get(since, 0) > current_app.config[days] * 86400 for since, days in limits.items())


def _account_of(session_id: str) -> User | None:
    user_id, _, stamp = session_id.partition(".")
    user = accounts.find_by_id(int(user_id)) if user_id.isdecimal() else None
    if user is None or not user.is_active or not compare_digest(user.security_stamp.encode(), stamp.encode()):
        return None
    return user
