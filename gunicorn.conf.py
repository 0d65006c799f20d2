"""gunicorn's configuration: `gunicorn` in this folder serves the application.

A wrong setting stops the start before any worker forks, each worker process delivers emails, and SIGHUP loads new code.
Command-line options override these settings. This file must not log, because redaction starts in create_app.
"""

import os
import sys
import threading

from gunicorn.glogging import Logger

# SIGHUP reads this file again in a process that still has the old code loaded; new workers must load the code on disk.
if "wsgi" not in sys.modules:  # with --preload the old application stays, so its modules must stay too
    for name in [name for name in sys.modules if name.partition(".")[0] in {"config", "config_checks", "pwreset"}]:
        del sys.modules[name]

from config import ConfigError, load
from pwreset.logs import JSONFormatter
from pwreset.startup import LOCAL_ONLY, start_under_gunicorn

wsgi_app = "wsgi:app"
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY") or "2")
threads = 8
control_socket_disable = True  # nothing here uses it
# Only TRUSTED_PROXIES decides which headers are trusted. By default, gunicorn trusts every process on this machine.
secure_scheme_headers = {}
forwarder_headers = ""

try:
    settings = load()
except ConfigError as error:
    sys.exit(error.message)
if settings["PUBLIC_URL"] is None:
    sys.exit(LOCAL_ONLY)


class JSONLogger(Logger):
    """Writes gunicorn's own log lines as JSON objects."""

    def setup(self, cfg):
        """Set up the handlers as gunicorn does, then replace their formatters."""
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(JSONFormatter())


# An email that is being sent when the server stops needs this time, or a second copy would follow.
graceful_timeout = int(settings["EMAIL_DEADLINE"]) + 10
if settings["LOG_FORMAT"] == "json":
    logger_class = JSONLogger


def pre_fork(server, worker):
    """Wait for the limiter's timer of 10 ms (--preload): the child would inherit a lock that is locked at the fork."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(timeout=1)


def post_worker_init(worker):
    """Start the outbox worker in each worker process, after the fork (with and without --preload)."""
    start_under_gunicorn(
        worker.wsgi, respawned=worker.age > worker.cfg.workers
    )  # `age` counts the workers since the start
