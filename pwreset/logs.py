"""The format of log lines, and the redaction of everything that must not be in one.

Every log record of this process is redacted when it is created, for all loggers and handlers: Flask, Werkzeug and
gunicorn log paths, and the path of an emailed link opens an account. Secrets and links are replaced, and control
characters that a client sent (CWE-117) are escaped. This module must not know routes except those of emailed links.
"""

import logging
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from pythonjsonlogger.json import JsonFormatter

EMAILED_LINK = re.compile(r"(?i)(password-reset-confirm|password-reset-cancel|account-secure)/[^\s\"'?#<>]+")
# A token without its link: six characters of time, a dot, 43 of signature.
TOKEN = re.compile(r"[A-Za-z0-9_-]{6,7}\.[A-Za-z0-9_-]{43}")
SECRETS: set[str] = set()
ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
# C0, C1, the line and paragraph separators, and the characters that change the direction of text.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
MULTILINE_LOGGER = "pwreset.outbox.worker"  # it logs tracebacks, and no text from a client
COLOURS = re.compile(r"\x1b\[[\d;]*m")  # Werkzeug colours its lines, which only a terminal can show
SET_PASSWORD = re.compile(r"/set-password/?$")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FIELDS = ("levelname", "name", "process", "message")
SHORTER_NAMES = {"levelname": "level", "name": "logger", "exc_info": "traceback"}
# At INFO, these repeat our lines, log heartbeats, or log every rejected request of a flood.
VERBOSE_LOGGERS = (
    "alembic",
    "celery.app.trace",
    "celery.redirected",
    "celery.worker.strategy",
    "flask-limiter",
    "kombu",
)


def redact(text: str) -> str:
    """Return the text with every secret and every token of an emailed link replaced; `set-password` stays."""
    plain = ESCAPED.sub(_unescape, text)  # /password%2Dreset... opens the same page
    clean = EMAILED_LINK.sub(lambda link: link[0] if SET_PASSWORD.search(link[0]) else f"{link[1]}/[redacted]", plain)
    clean = TOKEN.sub("[redacted]", clean)
    for secret in SECRETS:
        clean = clean.replace(secret, "[redacted]")
    return text if clean == plain else clean


def escape_controls(text: str, *, lines: bool = False) -> str:
    """Return the text with control characters as Python escapes; with `lines`, line breaks stay."""
    return CONTROLS.sub(lambda found: found[0] if lines and found[0] == "\n" else _escape(found[0]), text)


def redact_password_of(url: str) -> None:
    """Redact the password of a URL, encoded and decoded, in everything that is logged from now on.

    Some libraries log their server's replies, and Redis, for example, repeats commands that it does not understand.
    """
    password = urlsplit(url).password
    if password:
        SECRETS.update({password, unquote(password)})


def install() -> None:
    """Redact every log record created from now on in this process; a second call changes nothing."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return _cleaned(make(*args, **kwargs))

    make_redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_redacted)


class JSONFormatter(JsonFormatter):
    """One JSON object a line: `time` (UTC, ISO 8601), `level`, `logger`, `process`, `message`, and extra fields."""

    def __init__(self) -> None:
        super().__init__(FIELDS, rename_fields=SHORTER_NAMES, timestamp="time")

    def formatException(self, exc_info: Any) -> Any:  # noqa: N802 (logging's name)
        """Return the traceback, redacted again because this formats it again."""
        return redact(str(super().formatException(exc_info)))


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter for the setting LOG_FORMAT, `text` or `json`."""
    return JSONFormatter() if log_format == "json" else logging.Formatter(TEXT)


def log_to_console(log_format: str) -> None:
    """Print log lines from INFO on, unless logging is set up already."""
    console = logging.StreamHandler()
    console.setFormatter(formatter(log_format))
    logging.basicConfig(level=logging.INFO, handlers=[console])
    for name in VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _unescape(escaped: re.Match[str]) -> str:
    character = chr(int(escaped[1], 16))
    return character if character.isascii() and (character.isalnum() or character in "-._~/") else escaped[0]


def _cleaned(record: logging.LogRecord) -> logging.LogRecord:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 (logging itself reports a record that can't be formatted)
        return record
    plain = COLOURS.sub("", text).replace("\n * ", " * ") if record.name == "werkzeug" else text
    clean = escape_controls(redact(plain), lines=record.name == MULTILINE_LOGGER)
    if clean != text:
        record.msg = clean
        record.args = None  # without arguments the text is not formatted again
    if record.exc_info and record.exc_info[0]:
        record.exc_text = escape_controls(redact(logging.Formatter().formatException(record.exc_info)), lines=True)
    return record
