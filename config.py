"""Every setting: read from the environment once, typed, and completed with its default.

`config_checks` says which values are allowed. Nothing here imports the application, opens a connection or prints.
"""

import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
from dotenv import dotenv_values
from sqlalchemy.engine import URL

from config_checks import CHECKS, MINIMUM_KEY_BYTES, is_loopback, origin

__all__ = ["LOCAL_URL", "ROOT", "SETTINGS", "ConfigError", "is_loopback", "load", "local_secret_key", "read"]

ROOT = Path(__file__).resolve().parent
LOCAL_URL = "http://127.0.0.1:5000"
BOOLEANS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


class Setting(NamedTuple):
    """A row of the table below: the type, the default as text (None: unset), and the range or the choices allowed."""

    kind: type
    default: str | None = None
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> Any:
        """Return the typed value of a text, or raise KeyError or ValueError if it is not allowed."""
        if self.kind is bool:
            return BOOLEANS[text.lower()]
        if self.kind is list:
            return [part.strip() for part in text.split(",") if part.strip()]
        value = self.kind(text)
        if (self.high and not self.low <= value <= self.high) or (self.choices and value not in self.choices):
            raise ValueError
        return value

    def expected(self) -> str:
        """Return the allowed values in words, for the message about a value that is not allowed."""
        if self.kind is bool:
            return "true or false"
        number = "a whole number" if self.kind is int else "a number"
        return " or ".join(self.choices) or f"{number} from {self.low:g} to {self.high:g}"


# The table of settings in the documentation explains each of them; a test compares the two.
SETTINGS = {
    "PUBLIC_URL": Setting(str),
    "SITE_NAME": Setting(str),
    "SECRET_KEY": Setting(str),
    "SECRET_KEY_FALLBACKS": Setting(list, ""),
    "DATABASE_URL": Setting(str),
    "INSTANCE_PATH": Setting(Path, str(ROOT / "instance")),
    "EMAIL_USER": Setting(str),
    "EMAIL_PASS": Setting(str),
    "EMAIL_HOST": Setting(str),
    "EMAIL_PORT": Setting(int, None, 1, 65535),
    "EMAIL_USE_TLS": Setting(bool),
    "EMAIL_USE_SSL": Setting(bool, "false"),
    "EMAIL_FROM": Setting(str),
    "EMAIL_TIMEOUT": Setting(float, "10", 0.1, 300),
    "EMAIL_DEADLINE": Setting(float, "30", 0.1, 59),
    "EMAIL_INTERVAL": Setting(int, "60", 1, 3600),
    "EMAIL_HOURLY": Setting(int, "5", 1, 1000),
    "PASSWORD_RESET_TIMEOUT": Setting(int, "3600", 1, 604800),
    "INVITE_TIMEOUT": Setting(int, "259200", 1, 604800),
    "PASSWORD_MIN_LENGTH": Setting(int, "15", 8, 128),
    "REGISTRATION_OPEN": Setting(bool, "true"),
    "SESSION_LIFETIME_DAYS": Setting(int, "14", 1, 400),
    "SESSION_MAXIMUM_DAYS": Setting(int, None, 1, 400),
    "OUTBOX_POLL_SECONDS": Setting(float, "1", 0.05, 60),
    "OUTBOX_LEASE_SECONDS": Setting(float, "60", 1, 3600),
    "OUTBOX_WORKER": Setting(str, "thread", choices=("thread", "none")),
    "RATELIMIT_ENABLED": Setting(bool, "true"),
    "RATELIMIT_RESET": Setting(int, "20", 1, 100000),
    "RATELIMIT_REGISTER": Setting(int, "20", 1, 100000),
    "RATELIMIT_LOGIN": Setting(int, "30", 1, 100000),
    "RATELIMIT_CONFIRM": Setting(int, "30", 1, 100000),
    "LOGIN_FREE_FAILURES": Setting(int, "5", 1, 100),
    "LOGIN_FIRST_WAIT": Setting(int, "15", 1, 900),
    "LOGIN_LONGEST_WAIT": Setting(int, "900", 1, 900),
    "REDIS_URL": Setting(str),
    "CELERY_BROKER_URL": Setting(str),
    "TRUSTED_PROXIES": Setting(int, "0", 0, 10),
    "METRICS_TOKEN": Setting(str),
    "LOG_FORMAT": Setting(str, "text", choices=("text", "json")),
}


class ConfigError(click.ClickException):
    """The problems with the settings, a sentence each; the `flask` command prints them without a traceback."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("pwreset cannot start:\n" + "\n".join(f"  - {problem}" for problem in problems))


def load(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Read the settings from the environment, then from `.env` in the project's root.

    Flask's own FLASK_SKIP_DOTENV=1 leaves the file out, as the tests do. Raises ConfigError as `read` does.
    """
    skip = BOOLEANS.get(environ.get("FLASK_SKIP_DOTENV", "").lower(), False)
    return read(environ if skip else {**dotenv_values(ROOT / ".env"), **environ})


def read(environ: Mapping[str, str | None]) -> dict[str, Any]:
    """Return every name in `SETTINGS` with its typed and checked value, None where unset.

    Args:
        environ: texts by the names of the settings; an empty text counts as unset.

    Raises:
        ConfigError: naming everything that is missing or wrong.
    """
    problems: list[str] = []
    given = {name: _typed(name, (environ.get(name) or "").strip(), problems) for name in SETTINGS}
    settings = _with_defaults(given)
    problems += [problem for check in CHECKS for problem in check(settings)]
    if problems:
        raise ConfigError(problems)
    return settings


def _typed(name: str, text: str, problems: list[str]) -> Any:
    setting = SETTINGS[name]
    try:
        if text:
            return setting.parse(text)
    except (KeyError, ValueError):
        problems.append(f"{name} is {text!r}: write {setting.expected()}.")
    return None if setting.default is None else setting.parse(setting.default)


def _with_defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Normalize the values, then fill in the defaults that depend on other settings."""
    settings = {**given, "EMAIL_PASS": "".join((given["EMAIL_PASS"] or "").split()) or None}
    with suppress(RuntimeError):  # `~name` stays unchanged if there is no such user
        settings["INSTANCE_PATH"] = settings["INSTANCE_PATH"].expanduser()
    settings["INSTANCE_PATH"] = settings["INSTANCE_PATH"].absolute()
    public_origin = origin(given["PUBLIC_URL"] or "")
    settings["PUBLIC_URL"] = public_origin or given["PUBLIC_URL"]
    scheme, _, rest = (given["DATABASE_URL"] or "").partition("://")
    if scheme in {"postgres", "postgresql"}:  # always psycopg 3, which may not be SQLAlchemy's default
        settings["DATABASE_URL"] = f"postgresql+psycopg://{rest}"
    defaults = {
        "SITE_NAME": urlsplit(public_origin or "http://localhost").hostname,
        "DATABASE_URL": URL.create("sqlite", database=f"{settings['INSTANCE_PATH']}/pwreset.db").render_as_string(),
        # NIST SP 800-63B-4, 2.1.3, unless the site asks for longer sessions.
        "SESSION_MAXIMUM_DAYS": max(30, given["SESSION_LIFETIME_DAYS"]),
        **_email_defaults(given),
    }
    return settings | {name: default for name, default in defaults.items() if settings[name] is None}


def _email_defaults(given: dict[str, Any]) -> dict[str, Any]:
    if not (given["EMAIL_USER"] or given["EMAIL_HOST"]):
        return {}
    host = given["EMAIL_HOST"] or "smtp.gmail.com"
    unencrypted_port = 25 if is_loopback(host) else 587
    return {
        "EMAIL_HOST": host,
        "EMAIL_PORT": 465 if given["EMAIL_USE_SSL"] else unencrypted_port,
        "EMAIL_USE_TLS": not (given["EMAIL_USE_SSL"] or is_loopback(host)),
        "EMAIL_FROM": given["EMAIL_USER"],
    }


def local_secret_key(folder: Path) -> str:
    """Return the secret key of local mode. The first call creates it, in a file that only its owner can read.

    Args:
        folder: the instance folder; created if missing.

    Raises:
        ConfigError: if the file contains no key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "secret_key"
    with suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)  # O_EXCL: of two processes, only one creates the key
        path.write_text(secrets.token_urlsafe(48), encoding="ascii")
    for _ in range(100):  # the other one waits for it, up to a second
        key = path.read_text(encoding="ascii", errors="replace").strip()
        if len(key) >= MINIMUM_KEY_BYTES:
            return key
        time.sleep(0.01)
    raise ConfigError([f"SECRET_KEY can't be read from {path}; delete the file, and the next start creates a new key."])
