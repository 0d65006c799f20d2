"""Who is signed in: Flask-Login's two questions, answered.

Decides that a session is good for one stamp of its account only. "Remember me" is a permanent session and not
Flask-Login's own cookie, which would not honour SECRET_KEY_FALLBACKS.
"""

from secrets import compare_digest

from flask_login import LoginManager

from pwreset import accounts
from pwreset.models import User


def init_app(login_manager: LoginManager) -> None:
    """Bind the answers to the extension."""
    login_manager.user_loader(load_user)
    login_manager.login_view = "users.login"
    login_manager.login_message = None
    login_manager.session_protection = None  # it signs people out when their network changes


def load_user(session_id: str) -> User | None:
    """Return the account of a session, or None where its stamp is no longer the account's or it is deactivated."""
    user_id, _, stamp = session_id.partition(".")
    user = accounts.find_by_id(int(user_id)) if user_id.isdecimal() else None
    if user is None or not user.is_active or not compare_digest(user.stamp.encode(), stamp.encode()):
        return None
    return user
