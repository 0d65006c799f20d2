"""How the application's own log lines look: for people, or one JSON object each.

Decides the two formats and that a process which nobody has set up for logging prints to its console. What must not be
in a line is `redaction`'s business; it is asked once more here, since a traceback is written out anew for JSON.
"""

import logging
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from pwreset.redaction import redact

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
