"""Starts the application in a server, as opposed to only importing it.

Decides which servers may run it, that the tables must exist first, and which process runs the worker: the serving
process under `flask run`, and each gunicorn worker after its fork. Commands, tests and scripts start no thread.
"""

import atexit
import logging
import signal
import sys
import threading
from typing import NoReturn

import click
from flask import Flask
from flask.cli import ScriptInfo
from werkzeug.serving import is_running_from_reloader

from pwreset.commands.database_group import database_required
from pwreset.database import UNAVAILABLE, SchemaError, check_schema
from pwreset.extensions import db
from pwreset.logs import log_to_console
from pwreset.monitoring import stall_monitor
from pwreset.outbox.worker import Worker

LOCAL_ONLY = (
    "PUBLIC_URL is not set, so this is local mode, which only `flask run` serves: behind another server every visitor "
    "would look like this machine. Set PUBLIC_URL, for example https://accounts.example.com."
)
BOOT_ERROR = 3  # after any other exit status, gunicorn restarts the worker for ever
logger = logging.getLogger(__name__)


def init_app(app: Flask) -> None:
    """Prepare an application that `flask run` serves; do nothing for any other command or program."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run" or context.find_object(ScriptInfo) is None:
        return
    _serve(app)
    log_to_console(app.config["LOG_FORMAT"])
    with app.app_context(), database_required():
        pass
    reloads = context.params.get("reload")
    if is_running_from_reloader() or not (app.debug if reloads is None else reloads):
        start_worker(app)


def serve_in_public(app: Flask) -> None:
    """Prepare an application that a server imports; local mode is for `flask run` alone.

    Raises:
        SystemExit: in local mode, with the reason.
    """
    if click.get_current_context(silent=True) is not None:
        return
    if app.config["PUBLIC_URL"] is None:
        abort_startup(LOCAL_ONLY)
    _serve(app)


def abort_startup(reason: str) -> NoReturn:
    """Print the reason, and end a server's process with a status after which no server restarts it.

    Raises:
        SystemExit: always.
    """
    click.echo(reason, err=True)
    raise SystemExit(BOOT_ERROR)


def require_schema(app: Flask, *, respawned: bool = False) -> None:
    """End a server's process if the tables are missing or old. If the database does not answer, only log a warning.

    Args:
        app: the application.
        respawned: the process was started in a running server. Then old tables mean that an upgrade is under way, and
            ending the process would end the server. Pages that need the new tables answer 503; the others work.

    Raises:
        SystemExit: with the command to run.
    """
    try:
        with app.app_context():
            check_schema(db.engine)
    except SchemaError as error:
        if not respawned:
            abort_startup(error.message)
        logger.error(error.message)  # noqa: TRY400 (the message needs no traceback)
    except UNAVAILABLE:
        logger.warning("The database does not answer.")


def start_worker(app: Flask) -> None:
    """Start the thread that delivers emails, in the process that serves requests.

    It is not started if Celery (CELERY_BROKER_URL) or `flask outbox run` (OUTBOX_WORKER=none) delivers them.
    """
    if app.config["OUTBOX_WORKER"] == "thread" and app.config["CELERY_BROKER_URL"] is None:
        Worker(app).start()
        _exit_on_sigterm()


def start_under_gunicorn(app: Flask, *, respawned: bool) -> None:
    """Prepare a gunicorn worker process after its fork; `post_worker_init` in `gunicorn.conf.py` calls this.

    Args:
        app: the application.
        respawned: the process was started later than the server.
    """
    # A terminal's Ctrl-C reaches this process too, right before the master's own signal, and gunicorn's handler
    # deadlocks when it interrupts itself (27.0.1, gthread). The master's signal is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to_console(app.config["LOG_FORMAT"])
    require_schema(app, respawned=respawned)
    start_worker(app)


def _serve(app: Flask) -> None:
    stall_monitor.init_app(app)
    atexit.register(app.extensions["pwreset"].rejected_requests.write)


def _exit_on_sigterm() -> None:
    # By default, SIGTERM ends Python at once, even while an email is sent. gunicorn and the reloader have own handlers.
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
