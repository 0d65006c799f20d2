"""gunicorn's configuration: `gunicorn` in this folder serves the application.

Decides that a wrong setting stops the start before any worker forks, that each worker process delivers mail, and that
SIGHUP brings new code. Options of the command line go before these. It must not log: only create_app redacts.
"""

import os
import sys
import threading

from gunicorn.glogging import Logger

# SIGHUP reads this file again where the code of the start is still loaded: new workers are to get what is on disk now.
if "wsgi" not in sys.modules:  # with --preload the application stays the old one, and so must all that belongs to it
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
# TRUSTED_PROXIES alone says whose word counts; gunicorn would take scheme and path from any process of this machine.
secure_scheme_headers = {}
forwarder_headers = ""

try:
    settings = load()
except ConfigError as error:
    sys.exit(error.message)
if settings["PUBLIC_URL"] is None:
    sys.exit(LOCAL_ONLY)


class JSONLogger(Logger):
    """gunicorn's own lines as JSON objects too."""

    def setup(self, cfg):
        """Set up as gunicorn does, then exchange the format."""
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(JSONFormatter())


# A mail under way when the server stops gets the time it may take, or it would come twice.
graceful_timeout = int(settings["EMAIL_DEADLINE"]) + 10
if settings["LOG_FORMAT"] == "json":
    logger_class = JSONLogger


def pre_fork(server, worker):
    """Wait for the limiter's timer of 10 ms (--preload): a lock it held at the fork would stay taken in the child."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(timeout=1)


def post_worker_init(worker):
    """Start the mail worker in the process that serves, after the fork (with and without --preload)."""
    start_under_gunicorn(worker.wsgi, respawned=worker.age > worker.cfg.workers)  # its number since the server's start
