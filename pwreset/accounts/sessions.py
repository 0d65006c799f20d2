"""Who is signed in.

Decides that a session is good for one stamp of its account only, and until it is logged out: what is in a cookie can't
be taken back, so the ids of sessions that ended are kept. Nor is the age of its signature the session's: Flask signs it
anew for whoever comes with it, so a session says itself when it began and when it was last alive. "Remember me" is a
permanent session and not Flask-Login's own cookie, which would not honour SECRET_KEY_FALLBACKS.
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

SESSION_ID, STARTED_AT, SEEN_AT = "_session_id", "_began_at", "_seen_at"
RENEWED_AFTER = 60  # seconds


def init_app(login_manager: LoginManager) -> None:
    """Bind the answers to the extension."""
    login_manager.user_loader(load_user)
    login_manager.login_view = "users.login"
    login_manager.login_message = None
    login_manager.session_protection = None  # it signs people out when their network changes
    login_manager._load_user_from_remember_cookie = _nobody  # noqa: SLF001 (nothing in its settings switches that off)


def load_user(session_id: str) -> User | None:
    """Return the account of a session, or None where it ended: logged out, too old, another stamp, deactivated."""
    now, last = int(utcnow().timestamp()), session.get(SEEN_AT, 0)
    if _is_too_old(now) or db.session.get(RevokedSession, session.get(SESSION_ID, "")) is not None:
        return None
    user = _account_of(session_id)
    if user is not None and session.permanent and now - last > RENEWED_AFTER:
        session[SEEN_AT] = now
    return user


def _is_too_old(now: int) -> bool:
    """Whether nobody came for too long, or who came on and on has to show the password again (ASVS 5.0, 7.3.2)."""
    lives = {SEEN_AT: "SESSION_LIFETIME_DAYS", STARTED_AT: "SESSION_MAXIMUM_DAYS"}
    return any(now - session.get(since, 0) > current_app.config[days] * 86400 for since, days in lives.items())


def _account_of(session_id: str) -> User | None:
    user_id, _, stamp = session_id.partition(".")
    user = accounts.find_by_id(int(user_id)) if user_id.isdecimal() else None
    if user is None or not user.is_active or not compare_digest(user.security_stamp.encode(), stamp.encode()):
        return None
    return user


def sign_in(session_id: str, *, remember: bool) -> None:
    """Start a session of its own: whoever used this browser before is signed out, and nothing of theirs is left in it.

    Args:
        session_id: what `User.get_id` returned before the commit. Read after it, the stamp could be that of a reset
            in between, and the session would outlive the reset; so it ends here, before it began.
        remember: whether it outlives the browser.
    """
    sign_out()
    user = _account_of(session_id)
    if user is not None:
        login_user(user)
        session[SESSION_ID] = secrets.token_urlsafe(18)
        session[STARTED_AT] = session[SEEN_AT] = int(utcnow().timestamp())
        session.permanent = remember


def sign_out() -> None:
    """End this session, and every copy of its cookie."""
    if SESSION_ID in session:
        ended = INSERT[db.engine.dialect.name](RevokedSession).values(id=session[SESSION_ID], ended_at=utcnow())
        db.session.execute(ended.on_conflict_do_nothing())  # the same browser may send two requests at once
        db.session.commit()
    session.clear()


def _nobody(_cookie: str) -> None:
    """Return whom a remember cookie of Flask-Login's signs in: we make none."""


def purge_revoked() -> None:
    """Delete in the present transaction the sessions whose cookies have expired by now."""
    longest = timedelta(days=current_app.config["SESSION_LIFETIME_DAYS"] + 1)
    db.session.execute(delete(RevokedSession).where(RevokedSession.ended_at < utcnow() - longest))
