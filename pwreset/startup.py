"""What changes when the application is served and not only imported.

Decides who may serve it, that the tables must be there first, and which process runs the worker: the one that serves
under `flask run`, and each gunicorn worker after its fork. Commands, tests and scripts start no thread.
"""

import atexit
import logging
import signal
import threading
from types import FrameType
from typing import NoReturn

import click
from flask import Flask
from flask.cli import ScriptInfo
from werkzeug.serving import is_running_from_reloader

from pwreset.database import UNAVAILABLE, SchemaError, check_schema
from pwreset.extensions import db
from pwreset.logs import log_to_console
from pwreset.monitoring import stall_monitor
from pwreset.outbox.worker import Worker

LOCAL_ONLY = (
    "PUBLIC_URL is not set, so this is local mode, which only `flask run` serves: behind another server every visitor "
    "would look like this machine. Set PUBLIC_URL, for example https://accounts.example.com."
)
logger = logging.getLogger(__name__)
BOOT_ERROR = 3  # gunicorn starts a worker that ends with another status again, and again without end


def init_app(app: Flask) -> None:
    """Prepare an application that `flask run` serves; for everybody else nothing happens here."""
    context = click.get_current_context(silent=True)
    # Programs of others have commands named "run" too, for example mutmut.
    if context is None or context.info_name != "run" or context.find_object(ScriptInfo) is None:
        return
    _serve(app)
    log_to_console(app.config["LOG_FORMAT"])
    try:
        _check_schema(app)
    except UNAVAILABLE as error:
        msg = f"The database does not answer ({type(error).__name__}). Check DATABASE_URL."
        raise click.ClickException(msg) from None
    reloads = context.params.get("reload")
    if is_running_from_reloader() or not (app.debug if reloads is None else reloads):
        start_worker(app)


def serve_in_public(app: Flask) -> None:
    """Prepare an application that a server imports, whatever its configuration; local mode is for `flask run` alone.

    Raises:
        SystemExit: in local mode, with the reason.
    """
    if click.get_current_context(silent=True) is not None:
        return
    if app.config["PUBLIC_URL"] is None:
        refuse(LOCAL_ONLY)
    _serve(app)


def refuse(reason: str) -> NoReturn:
    """End a server's process with a sentence, so that no server tries it again.

    Raises:
        SystemExit: always.
    """
    click.echo(reason, err=True)
    raise SystemExit(BOOT_ERROR)


def require_schema(app: Flask, *, joins: bool = False) -> None:
    """End a server's process whose database lacks our tables; one that is away may come back, and /healthz tells.

    Args:
        app: whose database.
        joins: the process joins a server that runs. An upgrade is under way then, and to end would take all others
            along: what needs the new tables is a 503 until they are there, and the rest works.

    Raises:
        SystemExit: with the command that mends it.
    """
    try:
        _check_schema(app)
    except SchemaError as error:
        if not joins:
            refuse(error.message)
        logger.error(error.message)  # noqa: TRY400 (a sentence says it all)
    except UNAVAILABLE:
        logger.warning("The database does not answer.")


def start_worker(app: Flask) -> None:
    """Start the thread that delivers mail, in the process that serves, unless somebody else delivers.

    That is Celery, where CELERY_BROKER_URL is set, or with OUTBOX_WORKER=none `flask outbox run`.
    """
    if app.config["OUTBOX_WORKER"] == "thread" and app.config["CELERY_BROKER_URL"] is None:
        Worker(app).start()
        _end_in_order_on_sigterm()


def start_under_gunicorn(app: Flask, *, joins: bool) -> None:
    """Prepare a gunicorn worker process, after its fork: `post_worker_init` in `gunicorn.conf.py` calls it.

    Args:
        app: what it serves.
        joins: it is none of those that the server was started with.
    """
    # A terminal's Ctrl-C comes here too, right before the master's own signal, and gunicorn's handler deadlocks when
    # it interrupts itself (27.0.1, gthread). The master's signal is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to_console(app.config["LOG_FORMAT"])
    require_schema(app, joins=joins)
    start_worker(app)


def _check_schema(app: Flask) -> None:
    with app.app_context():
        check_schema(db.engine)


def _serve(app: Flask) -> None:
    stall_monitor.init_app(app)
    atexit.register(app.extensions["pwreset"].rejected_requests.write)


def _end_in_order_on_sigterm() -> None:
    # By default SIGTERM ends Python at once, in mid-send. gunicorn and the reloader have handlers of their own.
    on_main = threading.current_thread() is threading.main_thread()
    if on_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
