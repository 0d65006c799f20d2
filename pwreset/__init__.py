"""pwreset: Django's password reset, for Flask. This module builds the application, and does nothing else."""

from collections.abc import Mapping
from typing import Any

from flask import Flask
from flask_login import current_user

import config as settings
from pwreset import commands, database, logs, password_reset, rate_limits, startup, users
from pwreset.accounts import sessions
from pwreset.accounts.tokens import PasswordResetTokenGenerator
from pwreset.extensions import csrf, db, limiter, login_manager, migrate
from pwreset.extensions import mail as mail_extension  # plain `mail` would hide the package of that name
from pwreset.monitoring import health, metrics
from pwreset.monitoring.rejected_requests import RejectedRequests
from pwreset.state import AppState
from pwreset.web import errors, mailbox, security

FLASK_MAIL_NAMES = {
    "MAIL_SERVER": "EMAIL_HOST",
    "MAIL_PORT": "EMAIL_PORT",
    "MAIL_USERNAME": "EMAIL_USER",
    "MAIL_PASSWORD": "EMAIL_PASS",
    "MAIL_USE_TLS": "EMAIL_USE_TLS",
    "MAIL_USE_SSL": "EMAIL_USE_SSL",
    "MAIL_DEFAULT_SENDER": "EMAIL_FROM",
}
"""Flask-Mail's names for our settings. Only Flask-Mail reads these names; this application reads EMAIL_*."""


def create_app(
    config: Mapping[str, Any] | None = None, *, token_generator: PasswordResetTokenGenerator | None = None
) -> Flask:
    """Build the application.

    Args:
        config: settings by their documented names, read instead of the environment and `.env`; other names go into
            Flask's configuration unchanged.
        token_generator: creates and checks reset links instead of the default one. Each application has one generator,
            because emails are written outside of requests.

    Raises:
        config.ConfigError: naming every setting that is missing or wrong.
    """
    logs.install()
    app = _configured(config)
    app.extensions["pwreset"] = AppState(RejectedRequests(app), token_generator)
    security.init_app(app)
    _bind_extensions(app)
    _add_template_globals(app)
    for module in (users, password_reset, mailbox, health, metrics):
        app.register_blueprint(module.bp)
    for part in (errors, commands, startup):
        part.init_app(app)
    return app


def _configured(given: Mapping[str, Any] | None) -> Flask:
    known = settings.load() if given is None else settings.read(_as_text(given))
    if known["REDIS_URL"]:
        logs.redact_password_of(known["REDIS_URL"])
    folder = known["INSTANCE_PATH"]
    app = Flask(__name__, instance_path=str(folder), template_folder=str(settings.ROOT / "templates"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known["SECRET_KEY"] = known["SECRET_KEY"] or settings.local_secret_key(folder)
    except OSError as error:
        problem = f"INSTANCE_PATH can't be used ({error.strerror}); name a folder that this user can write to."
        raise settings.ConfigError([problem]) from None
    app.config.update(known, **_flask_settings(known))
    app.config.update({name: value for name, value in (given or {}).items() if name not in settings.SETTINGS})
    return app


def _as_text(given: Mapping[str, Any]) -> dict[str, str]:
    lists = {name: ",".join(map(str, value)) for name, value in given.items() if isinstance(value, list | tuple)}
    return {name: str(value) for name, value in {**given, **lists}.items() if value is not None}


def _flask_settings(known: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of Flask and its extensions under their own names."""
    secure = (known["PUBLIC_URL"] or "").startswith("https:")
    return {
        "MAX_CONTENT_LENGTH": security.MAXIMUM_BODY,
        "MAX_FORM_PARTS": security.MAXIMUM_PARAMETERS,
        "PERMANENT_SESSION_LIFETIME": known["SESSION_LIFETIME_DAYS"] * 86400,
        "SEND_FILE_MAX_AGE_DEFAULT": 3600,
        # Cookies ignore ports, so a unique name keeps other applications on this host from replacing the session.
        "SESSION_COOKIE_NAME": "__Host-pwreset_session" if secure else "pwreset_session",
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": secure,
        "SQLALCHEMY_DATABASE_URI": known["DATABASE_URL"],
        "SQLALCHEMY_ENGINE_OPTIONS": {"hide_parameters": True, "pool_pre_ping": True},
        # Flask-WTF ignores fallback keys, and its Referer check fails behind proxies; `security` checks Origin instead.
        "WTF_CSRF_SECRET_KEY": [*reversed(known["SECRET_KEY_FALLBACKS"]), known["SECRET_KEY"]],
        "WTF_CSRF_SSL_STRICT": False,
        "WTF_CSRF_TIME_LIMIT": None,
        "MAIL_DEBUG": False,  # it would print the login and the link
        **rate_limits.storage_settings(known["REDIS_URL"]),
        **{name: known[ours] for name, ours in FLASK_MAIL_NAMES.items()},
    }


def _bind_extensions(app: Flask) -> None:
    for extension in (db, csrf, mail_extension, limiter):
        extension.init_app(app)
    with app.app_context():
        database.prepare(db.engine)
    migrate.init_app(app, db, directory=str(settings.ROOT / "migrations"))
    # Its context processor would query the database on error pages, which must work without a database.
    login_manager.init_app(app, add_context_processor=False)
    sessions.init_app(login_manager)


def _add_template_globals(app: Flask) -> None:
    app.jinja_env.globals.update(
        current_user=current_user,
        local_mode=app.config["PUBLIC_URL"] is None,
        mailbox_url="/mailbox/" if app.config["EMAIL_HOST"] is None else None,
        registration_open=app.config["REGISTRATION_OPEN"],
        site_name=app.config["SITE_NAME"],
    )
