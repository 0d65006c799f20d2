"""How the application's log lines look, and what must never be in one.

Decides the two formats (text and JSON), and cleans every log record of this process as it is made. Flask, Werkzeug and
gunicorn all log paths, and the path of an emailed link opens an account, so links, passwords of services and control
characters (CWE-117) are replaced whatever logger or handler the record goes to.
"""

import logging
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from pythonjsonlogger.json import JsonFormatter

MAILED_LINK = re.compile(r"(?i)(password-reset-confirm|password-reset-cancel|account-secure)/[^\s\"'?#<>]+")
# Also by its shape alone, wherever it stands: six characters of time, a dot, 43 of signature.
TOKEN = re.compile(r"[A-Za-z0-9_-]{6,7}\.[A-Za-z0-9_-]{43}")
SECRETS: set[str] = set()
ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
# C0, C1, the line and paragraph separators, and what turns the direction of writing around.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
TELLS_IN_LINES = "pwreset.outbox.worker"  # where it happened, and nothing of a client's
COLOURS = re.compile(r"\x1b\[[\d;]*m")  # Werkzeug's own; without a terminal they would be read as text
SET_PASSWORD = re.compile(r"/set-password/?$")

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FIELDS = ("levelname", "name", "process", "message")
SHORTER_NAMES = {"levelname": "level", "name": "logger", "exc_info": "traceback"}
# Their every line at INFO is one of ours told again, a heartbeat, or one for each refused request of a flood.
CHATTY = (
    "alembic",
    "celery.app.trace",
    "celery.beat",
    "celery.redirected",
    "celery.worker.strategy",
    "flask-limiter",
    "kombu",
)


def redact(text: str) -> str:
    """Return the text with every secret and the key in every mailed link replaced; `set-password` stays readable."""
    plain = ESCAPED.sub(_unescaped, text)  # /password%2Dreset... opens the same page
    clean = MAILED_LINK.sub(lambda link: link[0] if SET_PASSWORD.search(link[0]) else f"{link[1]}/[redacted]", plain)
    clean = TOKEN.sub("[redacted]", clean)
    for secret in SECRETS:
        clean = clean.replace(secret, "[redacted]")
    return text if clean == plain else clean


def visible(text: str, *, lines: bool = False) -> str:
    """Return the text with every control character as its escape in Python; with `lines` line breaks stay."""
    return CONTROLS.sub(lambda found: found[0] if lines and found[0] == "\n" else _escape(found[0]), text)


def hide_password_of(url: str) -> None:
    """Keep the password in a URL, as it is written there and as it is said, out of all that is logged from now on.

    For those to whom others' libraries speak: Redis, for one, repeats a word that it does not understand.
    """
    password = urlsplit(url).password
    if password:
        SECRETS.update({password, unquote(password)})


def install() -> None:
    """Clean every log record made from now on in this process; calling it again changes nothing."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return _cleaned(make(*args, **kwargs))

    make_redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_redacted)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _unescaped(escaped: re.Match[str]) -> str:
    character = chr(int(escaped[1], 16))
    return character if character.isascii() and (character.isalnum() or character in "-._~/") else escaped[0]


def _cleaned(record: logging.LogRecord) -> logging.LogRecord:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 (logging itself reports a record that can't be formatted)
        return record
    plain = COLOURS.sub("", text).replace("\n * ", " * ") if record.name == "werkzeug" else text
    clean = visible(redact(plain), lines=record.name == TELLS_IN_LINES)
    if clean != text:
        record.msg, record.args = clean, None  # without arguments the text is not formatted again
    if record.exc_info and record.exc_info[0]:
        record.exc_text = visible(redact(logging.Formatter().formatException(record.exc_info)), lines=True)
    return record


class JSONFormatter(JsonFormatter):
    """A JSON object a line: `time` (UTC, ISO 8601), `level`, `logger`, `process`, `message`, and what the line adds."""

    def __init__(self) -> None:
        super().__init__(FIELDS, rename_fields=SHORTER_NAMES, timestamp="time")

    def formatException(self, exc_info: Any) -> Any:  # noqa: N802 (logging's name)
        """Return the traceback without the secret part of a link."""
        return redact(str(super().formatException(exc_info)))


def formatter(log_format: str) -> logging.Formatter:
    """Return what writes the lines.

    Args:
        log_format: the setting LOG_FORMAT, `text` or `json`.
    """
    return JSONFormatter() if log_format == "json" else logging.Formatter(TEXT)


def log_to_console(log_format: str) -> None:
    """Print the application's own log lines, where nobody has set up logging."""
    console = logging.StreamHandler()
    console.setFormatter(formatter(log_format))
    logging.basicConfig(level=logging.INFO, handlers=[console])
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
